"use strict";
// The page's state is its form and the two variables below. Texts are set as textContent only, never as HTML.

const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const MODALITIES = ["image", "text"];
const WAIT = 250; // milliseconds without a change before the sample is sent
const TINY = 160; // images up to this width show their pixels

let about;
let image = null; // the file that is shown, if there is one
let known = []; // labels of the example that is shown
let timer;
let latest = 0; // number of the latest change; answers to earlier ones are dropped

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const percent = (value) => (value > 0 && value < 0.001 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`);
const checked = (name) => find(`input[name=${name}]:checked`).value;

function setState(state, error = "") {
  document.body.dataset.state = state;
  find("#error").textContent = error;
  find("#error").hidden = !error;
}

function changed() {
  for (const modality of MODALITIES) {
    const mode = checked(`${modality}_mode`);
    const panel = find(`#${modality}-panel`);
    panel.classList.toggle("off", mode === "remove");
    find(".noise", panel).hidden = mode !== "noise";
    find("output", panel).textContent = find("input[type=range]", panel).value;
  }
  find("#clear-image").hidden = !image;
  latest += 1;
  clearTimeout(timer);
  const error = refusal();
  if (error) return setState("error", error);
  setState("busy");
  timer = setTimeout(send, WAIT, latest);
}

function refusal() {
  if (image && image.size > about.limits.bytes) {
    return `${image.name || "The image"} has ${Math.ceil(image.size / 2 ** 20)} MB, more than the ${about.limits.bytes / 2 ** 20} MB that this page takes: give a smaller one.`;
  }
  const length = find("#text").value.length;
  if (length > about.limits.characters) {
    return `The text has ${length} characters, more than the ${about.limits.characters} that this page takes: shorten it.`;
  }
  return "";
}

async function send(number) {
  const form = new FormData();
  form.append("text", find("#text").value);
  if (image) form.append("image", image, image.name || "the image");
  for (const modality of MODALITIES) {
    form.append(`${modality}_mode`, checked(`${modality}_mode`));
    for (const field of ["kind", "severity"]) form.append(`${modality}_${field}`, find(`[name=${modality}_${field}]`).value);
  }
  let answer;
  try {
    answer = await (await fetch("/predict", { method: "POST", body: form })).json();
  } catch {
    answer = { error: "The server does not answer. Is robusttune demo still running?" };
  }
  if (number !== latest) return;
  if (answer.error) {
    find("#picture").hidden = true;
    find("#hint").hidden = false;
    return setState("error", answer.error.replace(/^th/, "Th")); // a sentence may start with the name of a file
  }
  show(answer);
  setState("ready");
}

function show(answer) {
  const picture = find("#picture");
  picture.hidden = !answer.image;
  find("#hint").hidden = Boolean(answer.image);
  if (answer.image) {
    picture.onload = () => picture.classList.toggle("tiny", picture.naturalWidth <= TINY);
    picture.src = answer.image;
  } else picture.removeAttribute("src");
  const noisyText = checked("text_mode") === "noise" && answer.text;
  find("#read").hidden = !noisyText;
  find("#read q").textContent = noisyText || "";
  for (const article of all("[data-condition]")) showCondition(article, answer);
  showHeadline(answer);
}

function showCondition(article, answer) {
  const condition = article.dataset.condition;
  const summary = answer.conditions[condition];
  article.replaceChildren(find("h3", article));
  article.classList.toggle("current", answer.current === condition);
  if (!summary) {
    const missing = MODALITIES.filter((modality) => !answer[modality] && condition !== `no_${modality}`);
    const names = missing.map((modality) => (modality === "image" ? "an image" : "a text"));
    article.append(element("p", { textContent: `Add ${names.join(" and ")} to see this.` }));
    return;
  }
  for (const [name, probability] of summary.top) {
    const fill = element("span", {});
    fill.style.width = `${100 * probability}%`;
    const row = element(
      "div",
      { className: summary.labels.includes(name) ? "row first" : "row" },
      element("div", {}, element("b", { textContent: name, title: name }), element("i", { textContent: percent(probability) })),
      element("div", { className: "bar" }, fill),
    );
    row.dataset.name = name;
    row.dataset.probability = probability;
    article.append(row);
  }
  if (summary.others) {
    article.append(element("p", { textContent: `and ${summary.others.toLocaleString("en")} other classes` }));
  }
}

function showHeadline(answer) {
  const summary = answer.conditions[answer.current];
  const first = summary.top[0];
  const bases = {
    complete: "from the image and the text",
    no_image: "from the text alone",
    no_text: "from the image alone",
    nothing: "without image and text: from how frequent the classes were in training",
  };
  find(".headline").className = `panel headline ${answer.current}`;
  const label = find("#label");
  if (!about.multilabel) label.replaceChildren(`${first[0]} `, element("span", { textContent: percent(first[1]) }));
  else label.textContent = summary.labels.join(", ") || (about.threshold === null ? "no class reaches its threshold" : `no class reaches ${percent(about.threshold)}`);
  find("#basis").textContent = bases[answer.current];
  find("#known").hidden = !known.length;
  find("#known").replaceChildren(
    known.length > 1 ? "Labels in the data: " : "Label in the data: ",
    element("b", { textContent: known.join(", ") }),
    known.length && known.every((name) => summary.labels.includes(name)) && known.length === summary.labels.length ? " ✓" : "",
  );
}

function giveImage(file) {
  image = file;
  forgetExample();
  changed();
}

function forgetExample() {
  known = [];
  for (const button of all(".example")) button.classList.remove("chosen");
}

async function giveExample(number) {
  const example = about.examples[number];
  const turn = (latest += 1);
  const content = example.image ? await (await fetch(`/examples/${number}`)).blob() : null;
  if (turn !== latest) return; // something else was chosen meanwhile
  forgetExample();
  image = content;
  find("#text").value = example.text || "";
  known = example.labels;
  all(".example")[number].classList.add("chosen");
  changed();
}

function exampleButton(example, number) {
  const picture = element("img", { alt: "", loading: "lazy" });
  picture.onload = () => picture.classList.toggle("tiny", picture.naturalWidth <= TINY);
  if (example.image) picture.src = `/examples/${number}`;
  const caption = example.text ? element("span", { textContent: example.text }) : element("span", {}, element("em", { textContent: "no text" }));
  const button = element(
    "button",
    { type: "button", className: "example", onclick: () => giveExample(number) },
    example.image ? picture : element("span", { className: "none", textContent: "no image" }),
    caption,
  );
  return button;
}

function listen() {
  for (const control of all("select, input[type=radio], input[type=range]")) control.addEventListener("input", changed);
  find("#text").addEventListener("input", () => {
    forgetExample();
    changed();
  });
  find("#file").addEventListener("change", (event) => {
    if (event.target.files.length) giveImage(event.target.files[0]);
    event.target.value = ""; // the same file can be chosen again
  });
  find("#clear-image").addEventListener("click", () => giveImage(null));
  const drop = find(".drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault(); // the browser would open the file
      drop.classList.toggle("over", name === "dragover");
    });
  }
  document.addEventListener("drop", (event) => {
    if (event.dataTransfer.files.length) giveImage(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) giveImage(event.clipboardData.files[0]);
  });
}

async function start() {
  about = await (await fetch("/about")).json();
  find("#name").textContent = about.name;
  document.title = `${about.name} – robusttune`;
  find("#about").textContent = `${about.classes.toLocaleString("en")} classes, on ${about.encoders.join(" and ")}`;
  for (const modality of MODALITIES) {
    const kinds = about.noise[modality].map((kind) => element("option", { value: kind, textContent: kind.replaceAll("_", " ") }));
    find(`[name=${modality}_kind]`).append(...kinds);
    Object.assign(find(`[name=${modality}_severity]`), { min: about.severities[0], max: about.severities.at(-1) });
  }
  find("#examples").append(...about.examples.map(exampleButton));
  find(".examples").hidden = !about.examples.length;
  listen();
  if (about.examples.length) await giveExample(0);
  else changed();
}

start().catch(() => setState("error", "The page could not be loaded: the server does not answer."));
