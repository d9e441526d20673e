//! The one table of results.

use serde_json::{Value, json};

/// What is asked of a measure.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// Nothing: it is there to be seen.
    None,
    /// Ours at most this part of theirs.
    Part(f64),
    /// Ours at most this.
    AtMost(f64),
    /// Ours at least this.
    AtLeast(f64),
    /// Ours at least so many times theirs.
    Times(f64),
}

/// One line.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured, with its unit.
    pub measure: String,
    /// Ours, where it could be measured.
    pub ours: Option<f64>,
    /// The peer's, where it could be measured.
    pub theirs: Option<f64>,
    /// What is asked.
    pub goal: Goal,
}

impl Row {
    /// A line.
    pub fn new(measure: impl Into<String>, ours: Option<f64>, theirs: Option<f64>, goal: Goal) -> Row {
        Row { measure: measure.into(), ours, theirs, goal }
    }

    fn ratio(&self) -> Option<f64> {
        let (ours, theirs) = (self.ours?, self.theirs?);
        (theirs > 0.0).then(|| ours / theirs)
    }

    /// Whether the goal is met; `None` without a goal, or without what it needs.
    pub fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::None => None,
            Goal::Part(part) => Some(self.ratio()? <= part),
            Goal::AtMost(most) => Some(self.ours? <= most),
            Goal::AtLeast(least) => Some(self.ours? >= least),
            Goal::Times(times) => Some(self.ratio()? >= times),
        }
    }

    fn to_json(&self) -> Value {
        let goal = match self.goal {
            Goal::None => Value::Null,
            Goal::Part(part) => json!({ "ratio_at_most": part }),
            Goal::AtMost(most) => json!({ "ours_at_most": most }),
            Goal::AtLeast(least) => json!({ "ours_at_least": least }),
            Goal::Times(times) => json!({ "ratio_at_least": times }),
        };
        json!({
            "measure": self.measure, "ours": self.ours, "theirs": self.theirs, "ratio": self.ratio(), "goal": goal,
            "met": self.met(),
        })
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(v) if v.abs() >= 1000.0 || v.fract() == 0.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 100.0 => format!("{v:.1}"),
        Some(v) => format!("{v:.2}"),
    }
}

fn cells(row: &Row) -> [String; 6] {
    let goal = match row.goal {
        Goal::None => String::new(),
        Goal::Part(part) => format!("≤ 1/{:.0}", 1.0 / part),
        Goal::AtMost(most) => format!("≤ {}", number(Some(most))),
        Goal::AtLeast(least) => format!("≥ {}", number(Some(least))),
        Goal::Times(times) => format!("≥ {times} times"),
    };
    let met = match (row.met(), row.goal) {
        (Some(true), _) => "yes",
        (Some(false), _) => "no",
        (None, Goal::None) => "",
        (None, _) => "not measured",
    };
    let ratio = row.ratio().map_or("-".into(), |r| format!("{r:.3}"));
    [row.measure.clone(), number(row.ours), number(row.theirs), ratio, goal, met.into()]
}

/// The table as text, in Markdown's form.
pub fn text(rows: &[Row]) -> String {
    let head = ["measure", "ours", "theirs", "ratio", "goal", "met?"].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            let (left, right) = if column == 0 || column > 3 { ("", pad.as_str()) } else { (pad.as_str(), "") };
            text += &format!("| {left}{cell}{right} ");
        }
        text += "|\n";
        if i == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(*width + 1);
                text += &if (1..4).contains(&column) { format!("|{dashes}:") } else { format!("| {} ", &dashes[1..]) };
            }
            text += "|\n";
        }
    }
    text
}

/// The table for other programs.
pub fn json(rows: &[Row]) -> Value {
    rows.iter().map(Row::to_json).collect()
}
