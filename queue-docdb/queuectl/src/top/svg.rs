//! A screen as a picture, for documents.

use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

/// Pixels of a character.
const WIDTH: usize = 8;
const HEIGHT: usize = 17;

/// What a terminal has, as most of them show it.
fn color(color: Color) -> &'static str {
    match color {
        Color::Red => "#e06c75",
        Color::Cyan => "#56b6c2",
        _ => "#d8dee9",
    }
}

const BACKGROUND: &str = "#1d2128";

pub(super) fn svg(screen: &Buffer) -> String {
    let (columns, lines) = (screen.area.width, screen.area.height);
    let (width, height) = (usize::from(columns) * WIDTH, usize::from(lines) * HEIGHT);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"monospace\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"{BACKGROUND}\"/>\n"
    );
    for y in 0..lines {
        let mut x = 0;
        while x < columns {
            let first = &screen[(x, y)];
            let is_alike = |x: &u16| style(&screen[(*x, y)]) == style(first);
            let end = (x..columns).take_while(is_alike).count() as u16 + x;
            let run: String = (x..end).map(|x| screen[(x, y)].symbol()).collect();
            text += &draw(
                first,
                usize::from(x),
                usize::from(y),
                usize::from(end - x),
                &run,
            );
            x = end;
        }
    }
    text + "</svg>\n"
}

fn style(cell: &Cell) -> (Color, Modifier) {
    (cell.fg, cell.modifier)
}

/// Characters of one style. Its length is stated, because fonts differ in width.
fn draw(cell: &Cell, x: usize, y: usize, length: usize, run: &str) -> String {
    let (left, top, width) = (x * WIDTH, y * HEIGHT, length * WIDTH);
    let is_reversed = cell.modifier.contains(Modifier::REVERSED);
    let mut text = String::new();
    let mut fill = color(cell.fg);
    if is_reversed {
        text += &format!(
            "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{HEIGHT}\" fill=\"{fill}\"/>\n"
        );
        fill = BACKGROUND;
    }
    if run.trim().is_empty() {
        return text;
    }
    let weight = match cell.modifier.contains(Modifier::BOLD) {
        true => " font-weight=\"bold\"",
        false => "",
    };
    let run = run.replace('&', "&amp;").replace('<', "&lt;");
    let baseline = top + 13;
    text += &format!(
        "<text x=\"{left}\" y=\"{baseline}\" textLength=\"{width}\" fill=\"{fill}\"{weight} \
         xml:space=\"preserve\">{run}</text>\n"
    );
    text
}
