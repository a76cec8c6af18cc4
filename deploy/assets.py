"""Copy what the pages use out of the npm packages into `static/vendor/`, and draw the icon sprite.

Everything the browser loads is served by the portal itself, so only the few files that a page names are taken.
"""

import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "node_modules"
VENDOR = ROOT / "static" / "vendor"
SVG = "http://www.w3.org/2000/svg"

COPIES = {
    "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2": "inter-latin-wght-normal.woff2",
    "@fontsource-variable/inter/files/inter-latin-ext-wght-normal.woff2": "inter-latin-ext-wght-normal.woff2",
    "@fontsource-variable/inter/LICENSE": "inter.LICENSE.txt",
    "@fontsource/ibm-plex-mono/files/ibm-plex-mono-latin-400-normal.woff2": "ibm-plex-mono-latin-400-normal.woff2",
    "@fontsource/ibm-plex-mono/LICENSE": "ibm-plex-mono.LICENSE.txt",
    "@tabler/icons/LICENSE": "tabler-icons.LICENSE.txt",
}


def copy_stylesheet() -> None:
    """Copy Tabler's style sheet without the name of its source map, which is not served."""
    css = (MODULES / "@tabler/core/dist/css/tabler.min.css").read_text(encoding="utf-8")
    (VENDOR / "tabler.min.css").write_text(re.sub(r"/\*# sourceMappingURL=.*?\*/", "", css), encoding="utf-8")


def symbol(name: str) -> ElementTree.Element:
    """Return one icon as a `<symbol>`; a name that ends in `-filled` is drawn filled, any other in outline."""
    filled = name.endswith("-filled")
    source = (
        MODULES / "@tabler/icons/icons" / ("filled" if filled else "outline") / f"{name.removesuffix('-filled')}.svg"
    )
    if not source.is_file():
        sys.exit(f"static/icons.txt names {name!r}, which Tabler Icons does not have.")
    drawing = ElementTree.parse(source).getroot()  # noqa: S314  (a file of a package that package-lock.json pins)
    shape = ElementTree.Element(f"{{{SVG}}}symbol", {"id": name, "viewBox": drawing.attrib["viewBox"]})
    if filled:
        # The style sheet draws every icon as an outline; a filled one says so on its own shape.
        shape.attrib.update({"fill": "currentColor", "stroke": "none"})
    shape.extend(part for part in drawing if part.attrib.get("fill") != "none")
    for part in shape.iter():
        part.tail = part.text = None
    return shape


def draw_sprite() -> None:
    names = (ROOT / "static" / "icons.txt").read_text(encoding="utf-8").split()
    sprite = ElementTree.Element(f"{{{SVG}}}svg")
    sprite.append(ElementTree.Comment(" Tabler Icons, MIT licence "))
    sprite.extend(symbol(name) for name in sorted(set(names)))
    ElementTree.register_namespace("", SVG)
    ElementTree.ElementTree(sprite).write(VENDOR / "icons.svg", encoding="utf-8")


def main() -> None:
    shutil.rmtree(VENDOR, ignore_errors=True)
    VENDOR.mkdir(parents=True)
    copy_stylesheet()
    for source, target in COPIES.items():
        shutil.copyfile(MODULES / source, VENDOR / target)
    draw_sprite()


if __name__ == "__main__":
    main()
