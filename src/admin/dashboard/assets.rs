//! The dashboard's files, compiled into the binary.

/// A file that the page requests.
pub(super) struct Asset {
    name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) content: &'static [u8],
}

/// The page.
pub(super) const PAGE: &[u8] = include_bytes!("page.html");

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const fn script(name: &'static str, content: &'static [u8]) -> Asset {
    Asset { name, content_type: JAVASCRIPT, content }
}

/// All files except the page.
const ASSETS: &[Asset] = &[
    Asset { name: "style.css", content_type: CSS, content: include_bytes!("style.css") },
    script("actions.js", include_bytes!("actions.js")),
    script("bars.js", include_bytes!("bars.js")),
    script("chart.js", include_bytes!("chart.js")),
    script("charts.js", include_bytes!("charts.js")),
    script("dom.js", include_bytes!("dom.js")),
    script("feed.js", include_bytes!("feed.js")),
    script("format.js", include_bytes!("format.js")),
    script("headline.js", include_bytes!("headline.js")),
    script("history.js", include_bytes!("history.js")),
    script("main.js", include_bytes!("main.js")),
    script("panels.js", include_bytes!("panels.js")),
    script("scale.js", include_bytes!("scale.js")),
    script("server.js", include_bytes!("server.js")),
    script("theme.js", include_bytes!("theme.js")),
    Asset { name: "icon.svg", content_type: SVG, content: include_bytes!("icon.svg") },
];

/// Returns the file with this name.
pub(super) fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}
