//! The files of the page, compiled in.

/// A file that the page asks for.
pub(super) struct Asset {
    name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) content: &'static [u8],
}

/// The page itself.
pub(super) const PAGE: &[u8] = include_bytes!("page.html");

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Every file beside the page.
const ASSETS: &[Asset] = &[
    Asset { name: "style.css", content_type: CSS, content: include_bytes!("style.css") },
    Asset { name: "main.js", content_type: JAVASCRIPT, content: include_bytes!("main.js") },
    Asset { name: "icon.svg", content_type: SVG, content: include_bytes!("icon.svg") },
];

/// The file of that name.
pub(super) fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}
