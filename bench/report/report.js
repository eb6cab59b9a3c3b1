"use strict";
// The plots of a sweep. A candidate that is picked, in a plot or in the table, is marked everywhere.
(() => {
  const { data, color, plain, short, hover, layout, start } = onnxtrimPlots;
  const linesOf = (id) => (id === "original" ? data.original : data.candidates[id]);

  // Shape and colour both tell the roles apart.
  const ROLES = {
    dominated: { name: "beaten", symbol: "circle-open", size: 9, dim: 0.55 },
    frontier: { name: "frontier", symbol: "circle", size: 10, dim: 1 },
    original: { name: "original", symbol: "square", size: 10, dim: 1 },
    chosen: { name: "chosen", symbol: "star", size: 17, dim: 1 },
  };
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const LAYERS_SHOWN = 8;
  const ZOOM = 4; // budgets below zero that the zoomed view shows
  let zoomed = data.chosen !== null; // what is decided there is what one looks for
  let picked = null; // a candidate's id

  function bars(points, key) {
    return {
      type: "data", symmetric: false, thickness: 1.2, width: 4,
      array: points.map((p) => p[key][2] - p[key][0]),
      arrayminus: points.map((p) => p[key][0] - p[key][1]),
      visible: points.some((p) => p[key][2] > p[key][1]),
    };
  }

  function roleTrace(role, points, hasBars) {
    const look = ROLES[role];
    return {
      type: "scatter", mode: "markers", name: look.name, opacity: look.dim,
      x: points.map((p) => p.x[0]), y: points.map((p) => p.y[0]),
      ...(hasBars && {
        error_x: { ...bars(points, "x"), color: color(role) },
        error_y: { ...bars(points, "y"), color: color(role) },
      }),
      marker: {
        symbol: look.symbol, size: look.size, color: color(role),
        line: { width: 1.5, color: role === "dominated" ? color(role) : color("card") },
      },
      customdata: points.map((p) => p.id),
      hovertext: points.map((p) => hover(linesOf(p.id))),
      hovertemplate: "%{hovertext}<extra></extra>",
    };
  }

  // Around the picked candidate; always the last trace.
  function ring(plot) {
    const points = plot.points.filter((p) => p.id === picked);
    return {
      type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false,
      x: points.map((p) => p.x[0]), y: points.map((p) => p.y[0]),
      marker: { symbol: "circle-open", size: 26, color: color("picked"), line: { width: 3 } },
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
    if (plot.dots.length) {
      traces.push({
        type: "scatter", mode: "markers", name: "others", hoverinfo: "skip", x: plot.dots[0], y: plot.dots[1],
        marker: { size: 3, color: color("dominated") }, opacity: 0.5,
      });
    }
    for (const role of Object.keys(ROLES)) {
      const points = plot.points.filter((p) => p.role === role);
      if (points.length) traces.push(roleTrace(role, points, plot.bars || role === "chosen"));
    }
    traces.push(ring(plot));
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

  const draw = start([
    ...data.plots.map((plot) => ({
      id: plot.name, title: document.querySelector(`#${plot.name}-title`).firstChild.textContent, make: () => tradeOff(plot),
    })),
    ...data.panels.map((panel) => ({ id: `units-${panel.name}`, title: panel.title, make: () => histogram(panel) })),
  ]);

  // --- zoom, picking ------------------------------------------------------------------------

  const button = document.getElementById("zoom");
  button.hidden = !data.plots.some(
    (plot) => plot.budget !== null && plot.points.some((p) => p.y[1] < ZOOM * plot.budget),
  );
  button.setAttribute("aria-pressed", String(zoomed));
  button.addEventListener("click", () => {
    zoomed = !zoomed;
    button.setAttribute("aria-pressed", String(zoomed));
    draw();
  });

  const buttons = [...document.querySelectorAll("[data-pick]")];

  function pick(id) {
    if (picked !== null) mark(picked, false);
    picked = id === picked ? null : id;
    if (picked !== null) mark(picked, true);
    const lines = picked === null ? [] : linesOf(picked) ?? [picked];
    document.getElementById("picked").textContent = lines.filter((line) => line).join("; ");
    for (const plot of data.plots) {
      const place = document.getElementById(plot.name);
      const { x, y } = ring(plot);
      Plotly.restyle(place, { x: [x], y: [y] }, [place.data.length - 1]);
    }
  }

  function mark(id, isOn) {
    for (const one of buttons.filter((other) => other.dataset.pick === id)) {
      one.setAttribute("aria-pressed", String(isOn));
      one.closest("tr").classList.toggle("picked", isOn);
    }
  }

  for (const one of buttons) one.addEventListener("click", () => pick(one.dataset.pick));
  for (const plot of data.plots) {
    document.getElementById(plot.name).on("plotly_click", ({ points: [point] }) => {
      if (point?.customdata !== undefined) pick(point.customdata);
    });
  }
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && picked !== null) pick(picked);
  });
})();
