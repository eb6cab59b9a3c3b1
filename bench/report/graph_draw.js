"use strict";
// Boxes and lines of the picture of the model, as SVG elements.
const graphDrawing = (() => {
  const HEIGHT = { title: 34, note: 52 };
  const COLORS = 6;
  const PAPER = { width: 690, height: 900, zoom: 0.75 };
  const short = (text, most = 34) =>
    text.length <= most ? text : `${text.slice(0, most / 2 - 1)}…${text.slice(-most / 2)}`;

  // All texts go through textContent and setAttribute: a name can't become markup.
  function svg(tag, attributes = {}, text = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    return element;
  }

  function html(tag, className, text = "") {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.textContent = text;
    return element;
  }

  const ofRole = (node, ...roles) =>
    [...new Set(node.groups.filter(([, role]) => roles.includes(role)).map(([group]) => group))];
  const out = (node) => {
    const made = ofRole(node, "producer");
    return made.length ? made : ofRole(node, "carrier");
  };

  const VERBS = { producer: "makes", carrier: "passes on", consumer: "reads" };
  const LISTED = 12;

  // What is known of a box, its name first.
  function linesOf(node, groups) {
    const roles = node.groups.map(([group, role]) =>
      `${VERBS[role]} ${group + 1} ${groups[group][0]}: ${groups[group][1]} units`);
    const more = roles.length - LISTED;
    if (more > 0) roles.splice(LISTED, more, `and ${more} more groups`);
    const what = node.kind === "operator" ? node.operators || node.title : `${node.kind} of the model`;
    return [node.name, what, ...roles, ...node.facts];
  }

  function drawSwatch(group, looks) {
    const swatch = svg("svg", { class: "swatch", width: 22, height: 12, "aria-hidden": "true" });
    swatch.append(svg("rect", { width: 22, height: 12, rx: 2, fill: `url(#look${group % looks})` }));
    return swatch;
  }

  // The words in each box, and how large it must be.
  function measure(nodes) {
    const pen = document.createElement("canvas").getContext("2d");
    const width = (font, text) => {
      pen.font = `${font} system-ui, sans-serif`;
      return pen.measureText(text).width;
    };
    for (const node of nodes) {
      node.label = node.kind === "operator" ? short(node.title) : short(node.name, 22);
      const widest = Math.max(width("600 13px", node.label), width("12px", node.note));
      node.size = { width: Math.max(72, Math.ceil(widest) + 28), height: node.note ? HEIGHT.note : HEIGHT.title };
    }
  }

  // A stripe in as many equal parts as there are groups, up to six.
  function stripe(box, groups, y, width, looks) {
    const shown = groups.slice(0, 6);
    const part = (width - 12) / shown.length;
    shown.forEach((group, i) => {
      box.append(svg("rect", {
        class: "stripe", x: 6 - width / 2 + i * part, y, width: Math.max(part - 1, 1), height: 7,
        fill: `url(#look${group % looks})`, "data-of": group,
      }));
    });
  }

  const labelOf = (node, note) => `${node.label} ${note}. ${node.lines.join("; ")}`;

  function drawNode(node, n, at, looks) {
    const { width, height } = node.size;
    const box = svg("g", {
      class: `node ${node.kind}${node.frozen ? " frozen" : ""}`, transform: `translate(${at.x},${at.y})`,
      role: "button", tabindex: n ? -1 : 0, "aria-label": labelOf(node, node.note),
      "aria-pressed": "false", "data-node": n,
    });
    const round = node.kind === "operator" ? 6 : height / 2;
    box.append(svg("rect", { class: "body", x: -width / 2, y: -height / 2, width, height, rx: round }));
    stripe(box, ofRole(node, "consumer"), -height / 2, width, looks);
    stripe(box, out(node), height / 2 - 7, width, looks);
    box.append(svg("text", { class: "title", y: node.note ? -3.5 : 4.5 }, node.label));
    if (node.note) box.append(" ", svg("text", { class: "note", y: 12 }, node.note));
    return box;
  }

  // Through the middles of the bends, so that it has no corners, with a head at its end.
  function drawEdge([, , groups, told], points) {
    const spot = (p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`;
    let path = `M${spot(points[0])}`;
    for (let i = 1; i < points.length - 1; i++) {
      const next = points[i + 1];
      const isLast = i === points.length - 2;
      const end = isLast ? next : { x: (points[i].x + next.x) / 2, y: (points[i].y + next.y) / 2 };
      path += `Q${spot(points[i])} ${spot(end)}`;
    }
    const last = points.at(-1);
    if (points.length === 2) path += `L${spot(last)}`;
    const edge = svg("g", { class: `edge${groups.length ? ` c${groups[0] % COLORS}` : ""}` });
    edge.append(svg("path", { class: "line", d: path }), svg("path", { class: "head", d: `M${spot(last)}l-4-7h8z` }));
    edge.append(svg("title", {}, told));
    return edge;
  }

  function drawTable(nodes) {
    const table = html("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    for (const text of ["Box", "Operators", "What is known of it"]) {
      const cell = html("th", text === "Box" ? "" : "names", text);
      cell.scope = "col";
      head.append(cell);
    }
    for (const node of nodes) {
      const row = body.insertRow(), name = html("th", "", node.name);
      name.scope = "row";
      row.append(name, html("td", "names", node.title), html("td", "names", node.lines.slice(1).join("; ")));
    }
    return table;
  }

  // Paper can't be moved: the picture is cut, between rows of boxes, into slices of a page each.
  function slices(nodes, layout) {
    const { x, y, width, height } = layout.box;
    const k = Math.min(PAPER.zoom, PAPER.width / width);
    const result = [];
    for (let top = y, end; top < y + height; top = end) {
      end = Math.min(top + PAPER.height / k, y + height);
      const cut = gap(nodes, layout, end);
      if (end < y + height && cut > top + PAPER.height / k / 4) end = cut;
      const slice = svg("svg", { class: "slice", viewBox: `${x} ${top} ${width} ${end - top}`, width: k * width, height: k * (end - top) });
      slice.append(svg("use", { href: "#graph-stage" }));
      result.push(slice);
    }
    return result;
  }

  // The lowest place above `end` where no box is in the way.
  function gap(nodes, layout, end) {
    const tops = nodes.map((node, n) => [layout.at[n].y, node.size.height / 2])
      .filter(([at, half]) => at - half < end && end < at + half).map(([at, half]) => at - half);
    return tops.length ? gap(nodes, layout, Math.min(...tops) - 4) : end;
  }

  return { svg, html, linesOf, labelOf, measure, drawNode, drawEdge, drawSwatch, drawTable, slices, ofRole, out, VERBS };
})();
