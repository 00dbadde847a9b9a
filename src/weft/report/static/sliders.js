"use strict";
// Looks up the row of the sliders' positions and evaluates the formulas that come with the data.
(() => {
  const data = JSON.parse(document.getElementById("slider-data").textContent);
  const controls = document.getElementById("controls");
  const results = document.getElementById("results");
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  const scaled = (value, steps, unit) => {
    for (const [limit, prefix] of steps)
      if (Math.abs(value) >= limit) return `${(value / limit).toPrecision(3)} ${prefix}${unit}`;
    return `${value.toPrecision(3)} ${unit}`.trim();
  };
  const plain = (value) =>
    value >= 1e6 ? scaled(value, [[1e12, "T"], [1e9, "B"], [1e6, "M"]], "")
      : value.toLocaleString("en", { maximumSignificantDigits: value < 1000 ? 3 : 6 });
  const show = (value, unit) => {
    if (unit === "share") return `${(100 * value).toFixed(1)} %`;
    if (unit === "B")
      return scaled(value, [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"]], "");
    if (unit === "s" && value >= 172800) return `${(value / 86400).toPrecision(3)} days`;
    if (unit === "s" && value >= 7200) return `${(value / 3600).toPrecision(3)} hours`;
    if (unit === "s") return scaled(value, [[1, ""], [1e-3, "m"], [1e-6, "u"]], "s");
    return `${plain(value)} ${unit}`.trim();
  };

  const sliders = data.axes.map((axis) => {
    const input = element("input", {
      type: "range", min: 0, max: axis.values.length - 1, value: axis.start,
      "data-axis": axis.name, "aria-label": axis.name,
    });
    const output = element("output");
    controls.append(element("label", {}, axis.name, output, input));
    return { axis, input, output };
  });
  const boxes = data.inputs.map((one) => {
    const input = element("input", {
      type: "number", value: one.value, min: 0, step: "any", "data-input": one.name,
    });
    controls.append(element("label", {}, one.name, element("output"), input));
    return { one, input };
  });

  const product = (names, known) => names.reduce((total, name) => total * known[name], 1);
  const number = (name, value, unit) => element("div", {},
    element("b", { "data-name": name, "data-value": value }, show(value, unit)),
    element("span", {}, name));

  const bars = (group, row) => {
    const members = data.columns.map((column, index) => [column, row[index]])
      .filter(([column, value]) => column.group === group && value > 0);
    const largest = Math.max(...members.map(([, value]) => value));
    const rows = members.map(([column, value]) => element("div", { class: "bar" },
      element("span", {}, column.name),
      element("i", { style: `width:${(100 * value) / largest}%` }),
      element("span", { "data-name": `${group}/${column.name}`, "data-value": value },
        show(value, column.unit))));
    return [element("h3", {}, group), ...rows];
  };

  const draw = () => {
    let place = 0;
    const known = {};
    for (const { axis, input, output } of sliders) {
      const index = Number(input.value);
      place = place * axis.values.length + index;
      const value = axis.values[index];
      output.textContent = typeof value === "number" ? value.toLocaleString("en") : value;
      input.setAttribute("aria-valuetext", output.textContent);
      known[axis.name] = value;
    }
    for (const { one, input } of boxes) known[one.name] = Number(input.value);
    const row = data.rows[place];
    results.replaceChildren();
    if (typeof row === "string") {
      results.append(element("p", { class: "verdict no", "data-fits": "impossible" }, row));
      return;
    }
    data.columns.forEach((column, index) => {
      if (column.group === "") known[column.name] = row[index];
    });
    for (const one of data.derived)
      known[one.name] = (one.factor * product(one.times, known)) / product(one.over, known);
    if (data.limit) {
      const left = data.limit.value - known[data.limit.column];
      const text = `${data.limit.text}: ${show(Math.abs(left), "B")} ` +
        (left >= 0 ? "left" : "too much");
      const kind = left >= 0 ? "verdict" : "verdict no";
      results.append(element("p", { class: kind, "data-fits": left >= 0 ? "yes" : "no" }, text));
    }
    const alone = data.columns.filter((column) => column.group === "");
    results.append(element("div", { class: "numbers" },
      ...[...alone, ...data.derived].map((one) => number(one.name, known[one.name], one.unit))));
    for (const group of new Set(data.columns.map((column) => column.group))) {
      if (group !== "") results.append(...bars(group, row));
    }
  };
  controls.addEventListener("input", draw);
  controls.addEventListener("submit", (event) => event.preventDefault());
  draw();
})();
