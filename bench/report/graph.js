"use strict";
// Draws the picture of the model; graph_layout.js places its boxes, report.css colours it.
(() => {
  const root = document.documentElement;
  const graph = JSON.parse(document.getElementById("data").textContent).graph;
  const host = document.getElementById("graph");
  const picked = document.getElementById("graph-picked");
  const VERBS = { producer: "makes", carrier: "passes on", consumer: "reads" };
  const HEIGHT = { title: 30, note: 46 };
  const ZOOMS = { least: 0.02, most: 3, step: 1.3 };
  const LISTED = 8;
  const narrow = () => root.clientWidth < 640;
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

  const look = (group) => group % graph.looks;
  const ofRole = (node, ...roles) =>
    [...new Set(node.groups.filter(([, role]) => roles.includes(role)).map(([group]) => group))];
  const out = (node) => {
    const made = ofRole(node, "producer");
    return made.length ? made : ofRole(node, "carrier");
  };

  function measure() {
    const pen = document.createElement("canvas").getContext("2d");
    const width = (font, text) => {
      pen.font = `${font} system-ui, sans-serif`;
      return pen.measureText(text).width;
    };
    for (const node of graph.nodes) {
      node.label = node.kind === "operator" ? short(node.title) : short(node.lines[0], 22);
      const widest = Math.max(width("600 13px", node.label), width("12px", node.note));
      node.size = { width: Math.max(72, Math.ceil(widest) + 28), height: node.note ? HEIGHT.note : HEIGHT.title };
    }
  }

  // A stripe in as many equal parts as there are groups, up to six.
  function stripe(box, groups, y, width) {
    const shown = groups.slice(0, 6);
    const part = (width - 12) / shown.length;
    shown.forEach((group, i) => {
      box.append(svg("rect", {
        class: "stripe", x: 6 - width / 2 + i * part, y, width: Math.max(part - 1, 1), height: 7,
        fill: `url(#look${look(group)})`, "data-of": group,
      }));
    });
  }

  function drawNode(node, n, at) {
    const { width, height } = node.size;
    const box = svg("g", {
      class: `node ${node.kind}${node.frozen ? " frozen" : ""}`, transform: `translate(${at.x},${at.y})`,
      role: "button", tabindex: n ? -1 : 0, "aria-label": `${node.title}. ${node.lines.join("; ")}`,
      "aria-pressed": "false", "data-node": n,
    });
    const round = node.kind === "operator" ? 6 : height / 2;
    box.append(svg("rect", { class: "body", x: -width / 2, y: -height / 2, width, height, rx: round }));
    stripe(box, ofRole(node, "consumer"), -height / 2, width);
    stripe(box, out(node), height / 2 - 7, width);
    box.append(svg("text", { class: "title", y: node.note ? -3 : 4.5 }, node.label));
    if (node.note) box.append(svg("text", { class: "note", y: 12.5 }, node.note));
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
    const edge = svg("g", { class: `edge${groups.length ? ` c${look(groups[0]) % 6}` : ""}` });
    edge.append(svg("path", { class: "line", d: path }), svg("path", { class: "head", d: `M${spot(last)}l-4-7h8z` }));
    edge.append(svg("title", {}, told));
    return edge;
  }

  const view = { k: 1, x: 0, y: 0 };
  let layout, picture, stage, boxes, lines, tip;
  let chosen = null; // the group that is highlighted

  function build() {
    measure();
    layout = layOutGraph(graph);
    picture = svg("svg", {
      role: "group", "aria-labelledby": "graph-title", "aria-describedby": "graph-lead graph-help",
    });
    stage = svg("g");
    lines = graph.edges.map((edge, e) => drawEdge(edge, layout.bends[e]));
    boxes = graph.nodes.map((node, n) => drawNode(node, n, layout.at[n]));
    stage.append(...lines, ...boxes);
    picture.append(stage);
    tip = html("div", "tip");
    tip.hidden = true;
    tip.setAttribute("aria-hidden", "true"); // the boxes' labels say the same
    host.replaceChildren(picture, tip);
    host.removeAttribute("aria-busy");
    listen();
    fitWidth();
  }

  // --- where one looks ----------------------------------------------------------------------

  function place() {
    stage.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.k})`);
    tip.hidden = true;
  }

  function zoom(factor, x = host.clientWidth / 2, y = host.clientHeight / 2) {
    const k = Math.min(ZOOMS.most, Math.max(ZOOMS.least, view.k * factor));
    view.x = x - ((x - view.x) * k) / view.k;
    view.y = y - ((y - view.y) * k) / view.k;
    view.k = k;
    place();
  }

  function lookAt(k, x, y) {
    Object.assign(view, { k, x: host.clientWidth / 2 - k * x, y });
    place();
  }

  const middle = () => layout.box.x + layout.box.width / 2;
  // Readable first: a wide graph is not squeezed until its words are gone.
  function fitWidth() {
    const k = Math.min(1, Math.max(narrow() ? 0.55 : 0.7, host.clientWidth / layout.box.width));
    const isCut = k * layout.box.width > host.clientWidth;
    lookAt(k, isCut ? layout.at[0].x : middle(), -k * layout.box.y);
    const spare = host.clientHeight - k * layout.box.height;
    if (spare > 0) { view.y += spare / 2; place(); }
  }

  function fitAll() {
    const k = Math.min(1, host.clientWidth / layout.box.width, host.clientHeight / layout.box.height);
    lookAt(k, middle(), (host.clientHeight - k * layout.box.height) / 2 - k * layout.box.y);
  }

  function reveal(n) {
    const { x, y } = layout.at[n];
    const [left, top] = [view.x + view.k * x, view.y + view.k * y];
    const [w, h] = [graph.nodes[n].size.width * view.k / 2, graph.nodes[n].size.height * view.k / 2];
    const inside = left > w && left < host.clientWidth - w && top > h && top < host.clientHeight - h;
    if (inside) return;
    view.x = host.clientWidth / 2 - view.k * x;
    view.y = host.clientHeight / 2 - view.k * y;
    place();
  }

  function tell(n) {
    const node = graph.nodes[n];
    const [first, ...rest] = node.lines;
    tip.replaceChildren(html("b", "", first), ...rest.map((line) => html("div", "", line)));
    tip.hidden = false;
    const box = boxes[n].getBoundingClientRect(), frame = host.getBoundingClientRect();
    const x = box.left - frame.left + box.width / 2 - tip.offsetWidth / 2;
    const below = box.bottom - frame.top + 8;
    const above = box.top - frame.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(4, Math.min(x, host.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, below + tip.offsetHeight > host.clientHeight && above > 0 ? above : below)}px`;
  }

  // --- highlighting -------------------------------------------------------------------------

  function pick(group, move = true) {
    chosen = group === chosen ? null : group;
    picture.classList.toggle("picked", chosen !== null);
    const users = { producer: [], carrier: [], consumer: [] };
    graph.nodes.forEach((node, n) => {
      const roles = node.groups.filter(([one]) => one === chosen).map(([, role]) => role);
      roles.forEach((role) => users[role].push(n));
      boxes[n].classList.toggle("on", roles.length > 0);
      boxes[n].setAttribute("aria-pressed", String(roles.length > 0));
      const note = boxes[n].querySelector(".note");
      if (note) note.textContent = roles.length ? roles.map((role) => VERBS[role]).join(", ") : node.note;
    });
    graph.edges.forEach(([, , groups], e) => lines[e].classList.toggle("on", groups.includes(chosen)));
    for (const element of document.querySelectorAll("[data-group]")) {
      const isOn = Number(element.dataset.group) === chosen;
      element.classList.toggle("picked", isOn);
      if (element.matches("button")) element.setAttribute("aria-pressed", String(isOn));
    }
    for (const row of document.querySelectorAll("table.widths tbody tr")) {
      row.classList.toggle("picked", chosen !== null && row.cells[0].textContent === graph.groups[chosen]);
    }
    picked.textContent = chosen === null ? "" : sentence(users);
    if (chosen !== null && move) reveal((users.producer[0] ?? users.carrier[0] ?? users.consumer[0]) || 0);
  }

  function sentence(users) {
    const names = (list) => {
      const shown = list.slice(0, LISTED).map((n) => graph.nodes[n].lines[0]).join(", ");
      return list.length > LISTED ? `${shown} and ${list.length - LISTED} more` : shown;
    };
    const parts = [["made by", users.producer], ["passed on by", users.carrier], ["read by", users.consumer]];
    const told = parts.filter(([, list]) => list.length).map(([words, list]) => `${words} ${names(list)}`);
    return `Group ${chosen + 1}, ${graph.groups[chosen]}: ${told.join("; ")}.`;
  }

  // --- mouse, fingers, keys -----------------------------------------------------------------

  const boxOf = (event) => {
    const box = event.target.closest?.("[data-node]");
    return box ? Number(box.dataset.node) : null;
  };
  const isUsed = () => host.contains(document.activeElement);

  function neighbour(n, key) {
    const from = layout.at[n];
    const near = (list) => list.sort((a, b) => Math.abs(layout.at[a].x - from.x) - Math.abs(layout.at[b].x - from.x))[0];
    if (key === "ArrowDown") return near(graph.edges.filter(([a]) => a === n).map(([, b]) => b));
    if (key === "ArrowUp") return near(graph.edges.filter(([, b]) => b === n).map(([a]) => a));
    if (key === "Home") return 0;
    if (key === "End") return boxes.length - 1;
    const sign = key === "ArrowLeft" ? -1 : 1;
    return near(layout.at.map((_, m) => m).filter((m) =>
      Math.abs(layout.at[m].y - from.y) < 30 && sign * (layout.at[m].x - from.x) > 0));
  }

  function onKey(event) {
    const n = boxOf(event);
    const acts = {
      "+": () => zoom(ZOOMS.step), "=": () => zoom(ZOOMS.step), "-": () => zoom(1 / ZOOMS.step), 0: fitWidth,
      Enter: () => press(n), " ": () => press(n),
      Escape: () => { if (chosen !== null) pick(chosen); document.activeElement.blur(); tip.hidden = true; },
    };
    const act = acts[event.key] ?? (/^(Arrow|Home$|End$)/.test(event.key) && n !== null ? () => focus(neighbour(n, event.key)) : null);
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  function focus(n) {
    if (n === undefined) return;
    for (const box of boxes) box.setAttribute("tabindex", "-1");
    boxes[n].setAttribute("tabindex", "0");
    boxes[n].focus({ preventScroll: true });
  }

  function press(n) {
    if (n === null) return;
    const groups = [...out(graph.nodes[n]), ...ofRole(graph.nodes[n], "consumer")];
    if (groups.length) pick(groups[(groups.indexOf(chosen) + 1) % groups.length], false);
  }

  function listen() {
    const fingers = new Map();
    let moved = 0;
    picture.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      fingers.set(event.pointerId, event);
      moved = 0;
    });
    picture.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      moved += Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY);
      if (moved > 4) picture.setPointerCapture(event.pointerId);
      const other = [...fingers.values()].find((one) => one.pointerId !== event.pointerId);
      fingers.set(event.pointerId, event);
      if (other) {
        const span = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
        const frame = host.getBoundingClientRect();
        zoom(span(event) / Math.max(1, span(before)),
          (event.clientX + other.clientX) / 2 - frame.left, (event.clientY + other.clientY) / 2 - frame.top);
      } else if (moved > 4) {
        view.x += event.clientX - before.clientX;
        view.y += event.clientY - before.clientY;
        place();
      }
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      picture.addEventListener(end, (event) => fingers.delete(event.pointerId));
    }
    picture.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !isUsed()) return; // the page scrolls
      event.preventDefault();
      const frame = host.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), event.clientX - frame.left, event.clientY - frame.top);
    }, { passive: false });
    picture.addEventListener("click", (event) => {
      if (moved > 4) return;
      const n = boxOf(event);
      if (n === null) return focus(Number(boxes.find((box) => box.getAttribute("tabindex") === "0").dataset.node));
      focus(n);
      press(n);
      tell(n);
    });
    picture.addEventListener("pointerover", (event) => {
      const n = boxOf(event);
      if (n !== null && event.pointerType === "mouse" && !fingers.size) tell(n);
    });
    picture.addEventListener("pointerout", () => { tip.hidden = true; });
    picture.addEventListener("focusin", (event) => {
      const n = boxOf(event);
      if (n !== null) { reveal(n); tell(n); }
    });
    picture.addEventListener("focusout", () => { tip.hidden = true; });
    picture.addEventListener("keydown", onKey);
  }

  // --- the rest of the section --------------------------------------------------------------

  const started = () => { if (!picture) build(); };
  const acts = { in: () => zoom(ZOOMS.step), out: () => zoom(1 / ZOOMS.step), width: fitWidth, all: fitAll };
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => { started(); acts[button.dataset.view](); });
  }
  for (const button of document.querySelectorAll("button[data-group]")) {
    button.addEventListener("click", () => { started(); pick(Number(button.dataset.group)); });
  }

  const list = document.getElementById("graph-nodes");
  list.addEventListener("toggle", () => {
    const place = list.querySelector(".scroll");
    if (place.firstChild) return;
    const table = html("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    for (const text of ["Box", "Operators", "What is known of it"]) {
      const cell = html("th", "", text);
      cell.scope = "col";
      head.append(cell);
    }
    for (const node of graph.nodes) {
      const row = body.insertRow(), name = html("th", "", node.lines[0]);
      name.scope = "row";
      row.append(name, html("td", "names", node.title), html("td", "names", node.lines.slice(1).join("; ")));
    }
    place.append(table);
  });

  // Drawn when it comes near the view: a large graph must not hold up the rest of the page.
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    started();
  }, { rootMargin: "300px" }).observe(host);

  addEventListener("beforeprint", () => {
    started();
    const { x, y, width, height } = layout.box;
    stage.removeAttribute("transform");
    picture.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
    picture.style.maxWidth = `${0.75 * width}px`;
  });
  addEventListener("afterprint", () => {
    picture.removeAttribute("viewBox");
    picture.style.maxWidth = "";
    place();
  });
})();
