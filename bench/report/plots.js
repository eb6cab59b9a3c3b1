"use strict";
// What the plots of every page share: the JSON, colours from report.css, look, printing, saving.
const onnxtrimPlots = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const color = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  // Plotly reads a few HTML tags in texts: names must not bring their own.
  const plain = (text) =>
    text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  // The ends of a name tell more than its middle.
  const short = (text, most = 26) =>
    plain(text.length <= most ? text : `${text.slice(0, most / 2 - 1)}…${text.slice(-most / 2)}`);
  // Lines of a hover text, the first one bold.
  const hover = (lines) => {
    const [first, ...rest] = lines.filter((line) => line).map(plain);
    return [`<b>${first}</b>`, ...rest].join("<br>");
  };
  const narrow = () => root.clientWidth < 640;

  function layout(extra) {
    const axis = {
      gridcolor: color("grid"), linecolor: color("line"), zerolinecolor: color("grid"),
      tickcolor: color("line"), ticks: "outside", ticklen: 4, automargin: true, fixedrange: narrow(),
    };
    return {
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: narrow() ? 12 : 13, color: color("text") },
      margin: { l: 56, r: 14, t: 8, b: 48 },
      hovermode: "closest",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("line"), activecolor: color("soft") },
      dragmode: narrow() ? false : "zoom",
      hoverlabel: {
        align: "left", bgcolor: color("card"), bordercolor: color("line"),
        font: { color: color("text"), size: 13 },
      },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", maxheight: 90 },
      ...extra,
      xaxis: { ...axis, ...extra.xaxis },
      yaxis: { ...axis, ...extra.yaxis },
    };
  }

  const config = {
    responsive: true, displaylogo: false, showTips: false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d"]],
  };
  // On paper nothing may depend on a second pass, which comes too late: all sizes are fixed.
  const PAPER = {
    autosize: false, width: 640, height: 300, margin: { l: 64, r: 190, t: 12, b: 52, autoexpand: false },
    legend: { orientation: "v", x: 1.02, y: 1 },
  };
  const FILE = { width: 960, height: 540 };

  // Light colours whatever the page has, for paper and for documents.
  function inLight(act) {
    const before = root.classList.contains("print");
    root.classList.add("print");
    const found = act();
    root.classList.toggle("print", before);
    return found;
  }

  function save(item, format) {
    const [traces, look] = inLight(() => item.make());
    const size = { ...FILE, ...item.file?.() };
    const figure = { data: traces, layout: { ...look, ...size, autosize: false, paper_bgcolor: "#ffffff" } };
    return Plotly.downloadImage(figure, { ...size, format, filename: item.id, scale: format === "png" ? 2 : 1 });
  }

  function addButtons(item) {
    const bar = document.createElement("div");
    bar.className = "save";
    for (const format of ["png", "svg"]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = format.toUpperCase();
      button.dataset.save = format;
      button.setAttribute("aria-label", `Save as ${format.toUpperCase()}: ${item.title}`);
      button.addEventListener("click", () => save(item, format));
      bar.append(button);
    }
    document.getElementById(item.id).after(bar);
  }

  // Draw plots, and again when colours, width or paper ask for it. An item has an id, a title, `make`,
  // which gives traces and layout, and perhaps functions that tell its layout on `paper` and the size
  // of its `file`.
  function start(items) {
    let onPaper = false;
    const draw = () => {
      for (const item of items) {
        const [traces, look] = item.make();
        const size = onPaper ? { ...PAPER, ...item.paper?.() } : {};
        const options = { ...config, displayModeBar: narrow() ? false : "hover" };
        Plotly.react(document.getElementById(item.id), traces, { ...look, ...size }, options);
      }
    };
    draw();
    items.forEach(addButtons);
    for (const query of ["(prefers-color-scheme: dark)", "(max-width: 640px)"]) {
      matchMedia(query).addEventListener("change", draw);
    }
    for (const event of ["beforeprint", "afterprint"]) {
      addEventListener(event, () => {
        onPaper = event === "beforeprint";
        // What is folded on the screen must be on paper.
        for (const box of document.querySelectorAll("details.facts")) {
          if (onPaper) box.dataset.folded = String(!box.open);
          box.open = onPaper || box.dataset.folded === "false";
        }
        root.classList.toggle("print", onPaper);
        draw();
      });
    }
    return draw;
  }

  return { data, color, plain, short, hover, narrow, layout, start };
})();
