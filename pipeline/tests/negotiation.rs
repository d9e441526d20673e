//! Negotiation by cases: each has the plan or the message that it must lead to.

mod scripted;

use scripted::*;
use shrbuf::Format::{Grey, Nv12, Rg16, Xr24, Yuyv};
use shrbuf_pipeline::Copies;

#[test]
fn first() {
    let camera =
        Scripted::source(vec![video(Yuyv, &[(640, 480), (1280, 720)], &[30, 60]), video(Nv12, &[(1280, 720)], &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096), up_to(Rg16, 4096, 4096)]);
    let mut graph = row(vec![("camera", camera), ("display", display)]);
    println!("{}", message_with(&mut graph, Copies::Deny));
    println!("{}", message(&mut graph));
    let p = plan_with(&mut graph, Copies::Warn);
    println!("{:#?}\n{:#?}", links(&p), reasons(&p));
    let p = plan_with(&mut graph, Copies::Warn);
    println!("{:#?}\n{:#?}", p.budgets, p.rejected);
    let _ = Grey;
}
