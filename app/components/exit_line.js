// A model as blocks, as long as they take. Every spot between two of them is a button: a press puts an exit
// there or takes it away; an exit is dragged, or moved by the arrow keys.
const MOST = 4, HAIR = 1e-9, DRAG_PX = 4, REACH_PX = 14, READ_MS = 2500;
const HINT = "Click the end of a block to add an exit, an exit to remove it. Drag it, or move it with ← and →.";

export default function ({ data, parentElement, setStateValue }) {
  const line = (parentElement.line ??= new Line(parentElement));
  line.take(data, (exits) => setStateValue("exits", exits));
}

class Line {
  constructor(root) {
    this.root = root;
    this.part = (name) => root.querySelector(`.${name}`);
  }

  take(data, send) {
    if (this.data?.key !== data.key) this.exits = data.exits; // later on the line knows better than a rerun
    this.data = data;
    this.send = send;
    if (!this.drag) this.draw();
  }

  get names() {
    return typeof this.exits === "number" ? this.data.proposed[this.exits] : this.exits;
  }

  place(name) {
    return this.data.spots.findIndex((spot) => spot.name === name);
  }

  sorted(names) { // what is not on the line comes last
    const key = (name) => (this.place(name) < 0 ? this.data.spots.length : this.place(name));
    return [...names].sort((one, other) => key(one) - key(other));
  }

  // Why no exit may stand at a spot beside these others; empty where it may.
  refusal(index, others) {
    if (others.length >= MOST) return `${MOST} exits are the most.`;
    const spot = this.data.spots[index], { gap } = this.data;
    if (answered(spot) > 1 - gap + HAIR) {
      return `Too late: an exit here would answer after ${percent(answered(spot))} of the latency; more than `
        + `${percent(1 - gap)} saves nothing.`;
    }
    for (const name of others.filter((name) => this.place(name) >= 0)) {
      const other = this.data.spots[this.place(name)];
      const apart = (answered(spot) - answered(other)) * Math.sign(index - this.place(name));
      if (apart < gap - HAIR) {
        return `Too close to the exit after ${name}: their answers would come ${percent(Math.max(0, apart))} of `
          + `the latency apart; less than ${percent(gap)} saves nothing.`;
      }
    }
    return "";
  }

  change(exits, focused) {
    this.exits = exits;
    this.send(exits);
    this.tell("");
    this.draw(focused);
  }

  put(index, instead) {
    const name = this.data.spots[index].name;
    const others = this.names.filter((exit) => exit !== instead);
    if (others.includes(name)) return this.tell(instead ? "There is an exit already." : "");
    const why = this.refusal(index, others);
    if (why) return this.tell(why);
    this.change(this.sorted([...others, name]), name);
  }

  remove(name) {
    if (this.names.length <= 1) return this.tell("One exit has to stay; without any, remove the step.");
    this.change(this.names.filter((exit) => exit !== name), name);
  }

  // To the next spot in that direction where it may stand, not beyond another exit.
  step(index, by) {
    const { name } = this.data.spots[index], others = this.names.filter((exit) => exit !== name);
    let why = "There is no block in that direction.";
    for (let to = index + by; this.data.spots[to] && !others.includes(this.data.spots[to].name); to += by) {
      const refused = this.refusal(to, others);
      if (!refused) return this.put(to, name);
      why = refused;
    }
    this.tell(why);
  }

  tell(refused, hint = HINT) {
    this.refusedAt = refused ? Date.now() : 0;
    this.part("refused").textContent = refused;
    this.part("hint").textContent = hint;
  }

  hint(text) { // a refusal stays until it can have been read: a drop enters the spot below
    if (!this.drag && Date.now() - this.refusedAt > READ_MS) this.tell("", text);
  }

  draw(focused = this.root.getRootNode().activeElement?.dataset?.name) {
    this.drawCounts();
    this.drawBlocks();
    this.buttons = this.data.spots.map((spot, index) => this.button(spot, index));
    this.marks = this.data.spots.map((spot) => this.mark(spot));
    this.part("spots").replaceChildren(...this.buttons.flatMap((button, index) => [button, this.marks[index]]));
    this.part("exits").replaceChildren(...this.names.map((name, index) => this.row(name, index)));
    if (!this.part("hint").textContent) this.tell("");
    this.buttons[this.place(focused)]?.focus({ preventScroll: true });
  }

  drawCounts() {
    const told = make("span", {}, typeof this.exits === "number" ? "Placed by time" : "Place by time");
    const choices = Object.keys(this.data.proposed).map((number) => {
      const found = this.data.proposed[number].length;
      const why = found < number ? `${found} of ${number}: no others are far enough apart` : "";
      const button = make("button", { type: "button", title: why, "aria-label": `${number} placed by time`,
        "aria-pressed": String(this.exits === Number(number)) }, number);
      button.onclick = () => this.change(Number(number));
      return button;
    });
    this.part("counts").replaceChildren(told, ...choices);
  }

  drawBlocks() {
    const ends = [...this.data.spots.map((spot) => spot.share), 1];
    const blocks = ends.map((end, index) => {
      const start = index ? ends[index - 1] : 0, share = percent(end - start);
      const block = make("div", { class: "block", title: `${share} of the latency` });
      Object.assign(block.style, { left: `${100 * start}%`, width: `${100 * (end - start)}%` });
      block.append(make("span", {}, share));
      return block;
    });
    this.part("blocks").replaceChildren(...blocks);
  }

  // As wide as there is room for the pointer.
  button(spot, index) {
    const { spots } = this.data, number = this.names.indexOf(spot.name) + 1;
    const button = make("button", { type: "button", class: "spot", "data-name": spot.name,
      "aria-pressed": String(number > 0), "aria-label": `${number ? `Exit ${number} ` : ""}${where(spot)}` });
    const left = index ? (spots[index - 1].share + spot.share) / 2 : 0;
    const right = index + 1 < spots.length ? (spot.share + spots[index + 1].share) / 2 : 1;
    button.style.left = `max(${100 * left}%, ${100 * spot.share}% - ${REACH_PX}px)`;
    button.style.right = `max(${100 - 100 * right}%, ${100 - 100 * spot.share}% - ${REACH_PX}px)`;
    this.listen(button, spot, index, number > 0);
    return button;
  }

  mark(spot) {
    const mark = make("span", { class: "mark", "data-number": this.names.indexOf(spot.name) + 1 || "+" });
    mark.style.left = `${100 * spot.share}%`;
    return mark;
  }

  row(name, index) {
    const spot = this.data.spots[this.place(name)], row = make("li", {}), told = make("span", {});
    const rest = spot ? ` · ${percent(spot.share)} of the latency, its head ${percent(spot.head)}`
      : " · not between two blocks of this model";
    told.append(`Exit ${index + 1} · after `, make("code", {}, name), rest);
    const button = make("button", { type: "button", "aria-label": `Remove exit ${index + 1}` }, "×");
    button.onclick = () => this.remove(name);
    row.append(told, button);
    return row;
  }

  listen(button, spot, index, taken) {
    button.onclick = (event) => {
      if (event.detail && this.moved) return; // the end of a drag
      if (taken) this.remove(spot.name);
      else this.put(index);
    };
    button.onpointerenter = button.onfocus = () => this.hint(sentence(where(spot)));
    button.onpointerleave = () => this.hint();
    button.onkeydown = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by || (taken && ["Delete", "Backspace"].includes(event.key))) event.preventDefault();
      else return;
      if (!by) this.remove(spot.name);
      else if (taken) this.step(index, by);
      else this.buttons[index + by]?.focus();
    };
    button.onpointerdown = (event) => {
      this.moved = false;
      if (!taken || event.button) return;
      this.drag = { from: index, to: index, x: event.clientX };
      button.setPointerCapture(event.pointerId);
    };
    button.onpointermove = (event) => this.drag && this.aim(event.clientX);
    button.onpointerup = () => this.drag && this.drop(this.drag.to);
    button.onpointercancel = () => this.drag && this.drop(index);
  }

  aim(x) {
    const { from } = this.drag, { left, width } = this.part("spots").getBoundingClientRect();
    if (!this.moved && Math.abs(x - this.drag.x) < DRAG_PX) return;
    this.moved = true;
    const away = this.data.spots.map((spot) => Math.abs(spot.share - (x - left) / width));
    const to = (this.drag.to = away.indexOf(Math.min(...away)));
    const others = this.names.filter((name) => name !== this.data.spots[from].name);
    this.part("line").classList.add("dragging");
    this.marks.forEach((mark, index) => {
      mark.classList.toggle("left", index === from && to !== from);
      mark.classList.toggle("aim", index === to);
    });
    this.tell(this.refusal(to, others), sentence(where(this.data.spots[to])));
  }

  drop(to) {
    const { from } = this.drag;
    this.drag = null;
    if (!this.moved) return; // a click follows, on this button
    this.part("line").classList.remove("dragging");
    if (to === from) this.tell("");
    else this.put(to, this.data.spots[from].name);
    this.draw();
  }
}

const answered = (spot) => spot.share + spot.head;
const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
const where = (spot) =>
  `after ${spot.name}, ${percent(spot.share)} of the latency, its head ${percent(spot.head)}`;

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function make(tag, attributes, text = "") {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== "") element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
