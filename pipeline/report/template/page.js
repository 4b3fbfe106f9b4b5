"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();

for (const [id, figure] of Object.entries(figures)) {
  figure.layout.font.color = ink();
  Plotly.newPlot(id, figure.data, figure.layout, {
    responsive: true, displaylogo: false, displayModeBar: "hover",
    // A list of what is wanted: plotly's own one has a button that uploads the figure.
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    toImageButtonOptions: { filename: id, scale: 2 },
  });
}
dark.addEventListener("change", () => {
  for (const id of Object.keys(figures)) Plotly.relayout(id, { "font.color": ink() });
});

const search = document.getElementById("search");
if (search) {
  const rows = [...document.querySelectorAll("#unaccepted tbody tr")];
  const shown = document.getElementById("shown");
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  });
}

for (const box of document.querySelectorAll(".show-outlines")) {
  box.addEventListener("change", () => {
    box.closest("section").classList.toggle("outlines", box.checked);
  });
}
