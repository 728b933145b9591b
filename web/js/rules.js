// The builder of a rule's conditions. It reads and writes the JSON of the text area, which stays what is sent; without JavaScript the
// text area is what there is.

const MOST_DEPTH = 8;

/** Makes an element with attributes and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function choice(label, options, value, change) {
  const select = make("select", { class: "form-select form-select-sm", "aria-label": label, onchange: (event) => change(event.target.value) });
  for (const option of options) {
    select.append(make("option", { value: option.name, selected: option.name === value }, option.label));
  }
  return select;
}

class Builder {
  constructor(area, box) {
    this.area = area;
    this.box = box;
    this.language = JSON.parse(area.dataset.ruleLanguage);
    this.root = this.read();
    if (this.root) this.draw();
  }

  /** The tree of the text, or null if the builder cannot show all of it. */
  read() {
    let root;
    try {
      root = JSON.parse(this.area.value || "{}");
    } catch {
      return null;
    }
    if (!Array.isArray(root.rules)) root = { condition: "AND", rules: [] };
    return this.knows(root) ? root : null;
  }

  knows(node) {
    if (node === null || typeof node !== "object") return false;
    if (Array.isArray(node.rules)) return ["AND", "OR"].includes(node.condition) && node.rules.every((each) => this.knows(each));
    const name = node.field === "node" ? "host_identifier" : node.field;
    return this.language.fields.some((field) => field.name === name) && this.operator(node) !== undefined;
  }

  operator(test) {
    const prefix = this.language.column_prefix;
    const bare = test.field === "column" && test.operator?.startsWith(prefix) ? test.operator.slice(prefix.length) : test.operator;
    return this.language.operators.find((operator) => operator.name === bare);
  }

  operatorsOf(field) {
    return this.language.operators.filter((operator) => operator.of_target === (field === "target"));
  }

  write() {
    this.area.value = JSON.stringify(this.root, null, 2);
  }

  changed() {
    this.write();
    this.draw();
  }

  draw() {
    const focus = document.activeElement?.dataset?.path;
    this.box.replaceChildren(this.group(this.root, "0", null));
    if (focus) this.box.querySelector(`[data-path="${focus}"]`)?.focus();
  }

  group(group, path, remove) {
    const depth = path.split(".").length;
    const set = (change) => {
      change();
      this.changed();
    };
    const parts = [
      { name: "AND", label: "all of these hold" },
      { name: "OR", label: "any of these holds" },
    ];
    const kind = (group.not === true ? "!" : "") + group.condition;
    const kinds = [...parts, { name: "!OR", label: "none of these holds" }, { name: "!AND", label: "not all of these hold" }];
    const head = make(
      "div",
      { class: "rule-group-head" },
      choice("How the tests are joined", kinds, kind, (value) =>
        set(() => {
          group.condition = value.replace("!", "");
          group.not = value.startsWith("!");
        }),
      ),
      make("button", { type: "button", class: "btn btn-sm", "data-path": `${path}+test`, onclick: () => set(() => group.rules.push(this.newTest())) }, "Add a test"),
    );
    if (depth < MOST_DEPTH) {
      const inner = () => ({ condition: group.condition === "AND" ? "OR" : "AND", rules: [this.newTest()] });
      head.append(make("button", { type: "button", class: "btn btn-sm", "data-path": `${path}+group`, onclick: () => set(() => group.rules.push(inner())) }, "Add a group"));
    }
    if (remove) head.append(make("button", { type: "button", class: "btn btn-sm btn-ghost", "aria-label": "Remove the group", onclick: () => set(remove) }, "×"));
    const body = make("div", { class: "rule-group-body" });
    group.rules.forEach((each, index) => {
      const removeOne = () => group.rules.splice(index, 1);
      const place = `${path}.${index}`;
      body.append(Array.isArray(each.rules) ? this.group(each, place, removeOne) : this.test(each, place, removeOne));
    });
    if (group.rules.length === 0) body.append(make("p", { class: "form-hint" }, "Nothing is asked yet: add a test."));
    return make("div", { class: "rule-group", role: "group" }, head, body);
  }

  newTest() {
    return { field: "query_name", operator: "equal", value: "" };
  }

  test(test, path, remove) {
    if (test.field === "node") test.field = "host_identifier";
    const field = this.language.fields.find((each) => each.name === test.field);
    const operator = this.operator(test);
    const row = make("div", { class: "rule-test" });
    row.append(
      choice("What is looked at", this.language.fields, test.field, (name) => {
        const next = this.language.fields.find((each) => each.name === name);
        const fitting = this.operatorsOf(name);
        const kept = fitting.find((each) => each.name === operator.name) ?? fitting[0];
        const expected = field.named ? test.value?.[1] ?? "" : test.value ?? "";
        test.field = name;
        test.operator = (name === "column" ? this.language.column_prefix : "") + kept.name;
        test.value = next.named ? ["", expected] : expected;
        this.changed();
      }),
    );
    if (field.named) {
      const hint = test.field === "vital" ? "system_info.hardware_model" : "column";
      const name = Array.isArray(test.value) ? test.value[0] : test.value;
      row.append(this.input(path + "/name", name ?? "", hint, hint, (text) => {
        test.value = [text, ...(Array.isArray(test.value) ? test.value.slice(1) : [])];
      }));
    }
    row.append(
      choice("How it is compared", this.operatorsOf(test.field), operator.name, (name) => {
        const next = this.language.operators.find((each) => each.name === name);
        const text = this.shown(this.expected(test, field), operator);
        test.operator = (test.field === "column" ? this.language.column_prefix : "") + name;
        this.expect(test, field, next.takes_value ? this.typed(text, next) : undefined);
        this.changed();
      }),
    );
    if (operator.takes_value) {
      const hint = operator.many ? `${operator.wants}, with commas` : operator.wants;
      const list = test.field === "query_name" ? "rule-query-names" : undefined;
      const change = (text) => this.expect(test, field, this.typed(text, operator));
      row.append(this.input(path + "/value", this.shown(this.expected(test, field), operator), "With what", hint, change, list));
    }
    row.append(make("button", { type: "button", class: "btn btn-sm btn-ghost", "aria-label": "Remove the test", onclick: () => { remove(); this.changed(); } }, "×"));
    return row;
  }

  input(path, value, label, placeholder, change, list) {
    return make("input", {
      class: "form-control form-control-sm mono", type: "text", value, placeholder, list, "data-path": path, "aria-label": label,
      autocomplete: "off", spellcheck: "false",
      oninput: (event) => {
        change(event.target.value);
        this.write();
      },
    });
  }

  expected(test, field) {
    return field.named ? (Array.isArray(test.value) ? test.value[1] : undefined) : test.value;
  }

  expect(test, field, expected) {
    if (!field.named) {
      test.value = expected ?? "";
      return;
    }
    const name = Array.isArray(test.value) ? test.value[0] : test.value;
    test.value = expected === undefined ? [name] : [name, expected];
  }

  shown(expected, operator) {
    if (Array.isArray(expected)) return expected.join(", ");
    return expected === undefined || expected === null ? "" : String(expected);
  }

  typed(text, operator) {
    if (!operator.many) return text;
    return text.split(",").map((each) => each.trim()).filter((each) => each !== "");
  }
}

/** Fields that only some watches have. */
function showWatch(form) {
  const chosen = form.elements.watch?.selectedOptions[0];
  if (!chosen) return;
  for (const part of form.querySelectorAll("[data-watch-needs]")) part.hidden = !chosen.dataset[part.dataset.watchNeeds];
}

/** Puts a builder before each text area of conditions. */
export function showBuilders(root) {
  for (const area of root.querySelectorAll("textarea[data-rule-language]")) showBuilder(area);
}

function showBuilder(area) {
  const box = document.getElementById(area.dataset.ruleBuilder);
  const tabs = document.getElementById(area.dataset.ruleTabs);
  let builder = new Builder(area, box);
  const show = (written) => {
    if (!written) builder = new Builder(area, box);
    const json = written || builder.root === null;
    area.closest(".field").hidden = !json;
    box.hidden = json;
    tabs.hidden = false;
    for (const tab of tabs.querySelectorAll("button")) tab.setAttribute("aria-pressed", String((tab.dataset.show === "json") === json));
    tabs.querySelector("[data-cannot]").hidden = !(json && builder.root === null);
  };
  tabs.addEventListener("click", (event) => {
    const tab = event.target.closest("button[data-show]");
    if (tab) show(tab.dataset.show === "json");
  });
  area.required = false;
  // What is wrong is said at the JSON; there the place can be found.
  show(area.classList.contains("is-invalid") && builder.root === null);
  showWatch(area.form);
  area.form.addEventListener("change", (event) => {
    if (event.target.name === "watch") showWatch(area.form);
  });
}
