//! Cards that drive displays.

use serde::Serialize;
use shrbuf::Modifier;
use shrbuf::format::fourcc_name;
use shrbuf_elements::kms::{Card, CardInfo, ConnectorInfo, PlaneInfo};

use super::Found;

#[derive(Debug, Serialize)]
pub struct Display {
    pub path: String,
    pub driver: String,
    /// Another program is the DRM master.
    pub in_use: bool,
    pub connectors: Vec<Connector>,
    pub planes: Vec<Plane>,
}

#[derive(Debug, Serialize)]
pub struct Connector {
    pub name: String,
    pub connected: bool,
    /// Writes the picture to memory instead of showing it.
    pub writeback: bool,
    /// The one it prefers.
    pub preferred: Option<Mode>,
    pub modes: Vec<Mode>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mode {
    pub width: u16,
    pub height: u16,
    /// Refreshes a second.
    pub rate: u32,
}

#[derive(Debug, Serialize)]
pub struct Plane {
    pub id: u32,
    /// `primary`, `overlay` or `cursor`.
    pub kind: String,
    pub formats: Vec<PlaneFormat>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct PlaneFormat {
    pub format: String,
    pub modifiers: Vec<String>,
}

/// Every card that drives displays.
pub fn find() -> Vec<Found<Display>> {
    Card::find().into_iter().map(|found| Found::of(found, display)).collect()
}

fn display(card: CardInfo) -> Display {
    Display {
        path: card.path.display().to_string(),
        driver: card.driver,
        in_use: card.in_use,
        connectors: card.connectors.iter().map(connector).collect(),
        planes: card.planes.iter().map(plane).collect(),
    }
}

fn connector(info: &ConnectorInfo) -> Connector {
    let mode = |width_height: (u16, u16), rate| Mode { width: width_height.0, height: width_height.1, rate };
    let mut modes: Vec<Mode> = info.modes.iter().map(|m| mode(m.size(), m.vrefresh())).collect();
    // Modes that differ only in timing are one to whoever chooses a size.
    modes.dedup();
    Connector {
        name: info.name.clone(),
        connected: info.connected,
        writeback: info.writeback,
        preferred: info.preferred().map(|m| mode(m.size(), m.vrefresh())),
        modes,
    }
}

fn plane(info: &PlaneInfo) -> Plane {
    let formats = info.formats.iter().map(|(fourcc, modifiers)| PlaneFormat {
        format: fourcc_name(fourcc),
        modifiers: modifiers.iter().map(|&m| Modifier(m).to_string()).collect(),
    });
    Plane { id: info.handle.into(), kind: format!("{:?}", info.kind).to_lowercase(), formats: formats.collect() }
}
