"use strict";
// Draws the plots from the JSON in the page; colours come from report.css.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const color = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  // Plotly reads a few HTML tags in texts: names must not bring their own.
  const plain = (text) =>
    text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  // The ends of a name tell more than its middle.
  const short = (text) =>
    plain(text.length <= 26 ? text : `${text.slice(0, 12)}…${text.slice(-13)}`);
  const hover = (id) => {
    const lines = id === "original" ? data.original : data.candidates[id];
    const [first, ...rest] = lines.filter((line) => line).map(plain);
    return [`<b>${first}</b>`, ...rest].join("<br>");
  };

  // Shape and colour both tell the roles apart.
  const ROLES = {
    dominated: { name: "beaten", symbol: "circle-open", size: 9, dim: 0.55 },
    frontier: { name: "frontier", symbol: "circle", size: 10, dim: 1 },
    original: { name: "original", symbol: "square", size: 10, dim: 1 },
    chosen: { name: "chosen", symbol: "star", size: 17, dim: 1 },
  };
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const LAYERS_SHOWN = 8;

  // On paper nothing may depend on a second pass, which comes too late: all sizes are fixed.
  const PAPER = {
    autosize: false, width: 680, height: 300, margin: { l: 64, r: 200, t: 12, b: 52, autoexpand: false },
    legend: { orientation: "v", x: 1.02, y: 1 },
  };
  const ZOOM = 4; // budgets below zero that the zoomed view shows

  const narrow = () => root.clientWidth < 640;
  let zoomed = false;

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

  function bars(points, key) {
    return {
      type: "data", symmetric: false, thickness: 1.2, width: 4,
      array: points.map((p) => p[key][2] - p[key][0]),
      arrayminus: points.map((p) => p[key][0] - p[key][1]),
      visible: points.some((p) => p[key][2] > p[key][1]),
    };
  }

  function roleTrace(role, points) {
    const look = ROLES[role];
    return {
      type: "scatter", mode: "markers", name: look.name, opacity: look.dim,
      x: points.map((p) => p.x[0]), y: points.map((p) => p.y[0]),
      error_x: { ...bars(points, "x"), color: color(role) },
      error_y: { ...bars(points, "y"), color: color(role) },
      marker: {
        symbol: look.symbol, size: look.size, color: color(role),
        line: { width: 1.5, color: role === "dominated" ? color(role) : color("card") },
      },
      customdata: points.map((p) => p.id),
      hovertext: points.map((p) => hover(p.id)),
      hovertemplate: "%{hovertext}<extra></extra>",
    };
  }

  function tradeOff(plot) {
    const best = plot.points.filter((p) => p.best).sort((a, b) => a.x[0] - b.x[0]);
    const traces = [{
      type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false,
      x: best.map((p) => p.x[0]), y: best.map((p) => p.y[0]),
      line: { color: color("frontier"), width: 1.2 }, opacity: 0.5,
    }];
    const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
    plot.series.forEach((line, number) => traces.push({
      type: "scatter", mode: "lines", hoverinfo: "skip", name: line.name, x: line.x, y: line.y,
      line: { color: color("dominated"), width: 1, dash: dashes[number % dashes.length] },
    }));
    for (const role of Object.keys(ROLES)) {
      const points = plot.points.filter((p) => p.role === role);
      if (points.length) traces.push(roleTrace(role, points));
    }
    // A frontier rises to the right, so the place above and left of a point is free.
    const width = Math.max(...plot.points.map((p) => p.x[0]));
    const annotations = plot.points.filter((p) => p.role === "chosen").map((p) => ({
      x: p.x[0], y: p.y[0], text: short(p.id), showarrow: false, font: { color: color("chosen") },
      xanchor: p.x[0] > 0.3 * width ? "right" : "left", xshift: p.x[0] > 0.3 * width ? -9 : 9,
      yanchor: "bottom", yshift: 5,
    }));
    const shapes = [];
    if (plot.budget !== null) {
      const line = { color: color("budget"), width: 1.5, dash: "dash" };
      shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: plot.budget, y1: plot.budget, line });
      annotations.push({
        xref: "paper", x: 1, xanchor: "right", y: plot.budget, yanchor: "top", showarrow: false,
        text: `budget ${String(plot.budget).replace("-", "−")}`, font: { color: color("budget") },
      });
    }
    return [traces, layout({
      xaxis: {
        title: { text: plot.x.title }, rangemode: "tozero",
        ...(plot.x.counts ? { tickformat: "~s" } : {}),
      },
      yaxis: { title: { text: plot.y.title }, ...(zoomed ? zoom(plot) : {}) },
      annotations, shapes,
    })];
  }

  function zoom(plot) {
    if (plot.budget === null) return {};
    const top = Math.max(...plot.points.map((p) => p.y[2]), 0);
    return { range: [ZOOM * plot.budget, top - 0.3 * plot.budget] };
  }

  // A histogram as one stepped line: layers on top of each other stay readable.
  function histogram(panel) {
    const colors = color("series").split(/\s+/);
    const traces = panel.shares.map((share, i) => ({
      type: "scatter", mode: "lines", name: short(data.layers[i]),
      x: panel.edges, y: [...share, share.at(-1)].map((s) => 100 * s),
      line: {
        shape: "hv", width: 1.8, color: colors[i % colors.length],
        dash: DASHES[Math.floor(i / colors.length) % DASHES.length],
      },
      visible: i < LAYERS_SHOWN ? true : "legendonly", showlegend: true,
      hovertemplate: `${plain(data.layers[i]).replaceAll("%", "&#37;")}: %{y:.1f}% of its units from %{x:.3g}<extra></extra>`,
    }));
    const shapes = panel.thresholds.map((x) => ({
      type: "line", yref: "paper", y0: 0, y1: 1, x0: x, x1: x,
      line: { color: color("budget"), width: 1.5, dash: "dash" },
    }));
    const annotations = panel.thresholds.map((x) => ({
      x, yref: "paper", y: 1, yanchor: "top", xanchor: "left", xshift: 4, showarrow: false,
      text: `${panel.name} &lt; ${x}`, font: { color: color("budget") }, bgcolor: color("veil"),
    }));
    return [traces, layout({
      xaxis: { title: { text: panel.title } },
      yaxis: { title: { text: "Units of the layer, %" }, rangemode: "tozero" },
      shapes, annotations,
    })];
  }

  const config = {
    responsive: true, displaylogo: false, showTips: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };

  function draw(size = {}) {
    const all = [
      ...data.plots.map((plot) => [plot.name, tradeOff(plot)]),
      ...data.panels.map((panel) => [`units-${panel.name}`, histogram(panel)]),
    ];
    for (const [id, [traces, look]] of all) {
      const options = { ...config, displayModeBar: narrow() ? false : "hover", toImageButtonOptions: { format: "svg", filename: id } };
      Plotly.react(document.getElementById(id), traces, { ...look, ...size }, options);
    }
  }

  draw();
  const button = document.getElementById("zoom");
  button.hidden = !data.plots.some(
    (plot) => plot.budget !== null && plot.points.some((p) => p.y[1] < ZOOM * plot.budget),
  );
  button.addEventListener("click", () => {
    zoomed = !zoomed;
    button.setAttribute("aria-pressed", String(zoomed));
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  matchMedia("(max-width: 640px)").addEventListener("change", () => draw());
  addEventListener("beforeprint", () => {
    root.classList.add("print");
    draw(PAPER);
  });
  addEventListener("afterprint", () => {
    root.classList.remove("print");
    draw();
  });
})();
