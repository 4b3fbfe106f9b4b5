"""Makes the pictures of README.md from the results of the demo.

    make demo
    echo astronaut.mp4 > demo/held_out.txt
    mfhq build workflows/curate_demo.yaml source.path=demo/clips output=demo/pictures/mfhq split.test_fraction=0 \
        split.test_list=demo/held_out.txt people.link_cosine=0.999
    omniid train workflows/train_mtd_tiny.yaml data.root=demo/pictures/mfhq output=demo/pictures/run \
        steps=1000 batch=4 run.per_process=4
    python scripts/readme_pictures.py demo docs/images

`people.link_cosine=0.999` links no identities, so that one clip of the astronaut is held out while another one is
in the training split. The pictures show only the astronaut, whose photograph (NASA) is in the public domain. The
screenshot needs `chromium` on the PATH.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright

from shards.reader import Dataset
from shards.schema import Split

IDENTITY = "demo_astronaut_"
"""Prefix of the sample's key."""
TILE_PX, CAPTION_PX, GAP_PX, FONT_PX = 160, 24, 4, 14
REPORT_SIZE = (1120, 760)
"""Width and height of the screenshot in pixels."""


def main() -> None:
    """Write identity.jpg, report.png and reconstruction.png."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", type=Path, help="directory of the demo")
    parser.add_argument("output", type=Path, help="directory for the pictures")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    identity(options.demo / "mfhq").save(options.output / "identity.jpg", quality=90)
    report(options.demo / "mfhq" / "report" / "index.html", options.output / "report.png")
    grids = sorted((options.demo / "pictures" / "run" / "samples").glob("step-*.png"))
    Image.open(grids[-1]).save(options.output / "reconstruction.png", optimize=True)


def identity(root: Path) -> Image.Image:
    """The eight images of an identity in a row, with yaw and pitch below."""
    dataset = Dataset.open(root)
    (key,) = [key for key in dataset.keys(Split.TRAIN) if key.startswith(IDENTITY)]
    sample = dataset.sample(key)
    step = TILE_PX + GAP_PX
    sheet = Image.new("RGB", (len(sample.images) * step - GAP_PX, TILE_PX + CAPTION_PX), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_PX)
    for number, (jpeg, face) in enumerate(zip(sample.images, sample.record.images, strict=True)):
        tile = Image.open(io.BytesIO(jpeg)).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
        sheet.paste(tile, (number * step, 0))
        caption = f"yaw {face.pose.yaw:+.0f}°  pitch {face.pose.pitch:+.0f}°"
        middle = (number * step + TILE_PX / 2, TILE_PX + CAPTION_PX / 2)
        pen.text(middle, caption, (60, 60, 60), font, anchor="mm")
    return sheet


def report(page_path: Path, output: Path) -> None:
    """The first section of a report, as a browser shows it."""
    width, height = REPORT_SIZE
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=shutil.which("chromium"),
            args=["--headless", "--no-sandbox", "--disable-gpu"],
        )
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.goto(page_path.absolute().as_uri())
        page.wait_for_selector(".plot svg.main-svg")
        page.screenshot(path=output)
        context.close()
    Image.open(output).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(output, optimize=True)


if __name__ == "__main__":
    main()
