"use strict";

const element = (id) => document.getElementById(id);
const bars = 10;
let token = sessionStorage.getItem("token");
let models = [];
let newest = 0; // number of the last picture sent; answers to earlier ones are dropped
let shown = null; // the picture in view, which another model is asked about as well

/** Fetches from the server with the token; throws an Error with the server's own message. */
async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  const text = await answer.text();
  let message;
  try { message = JSON.parse(text).error; } catch { message = text; }
  throw Object.assign(new Error(message || `HTTP ${answer.status}`), { status: answer.status });
}

const chosen = () => models[Number(element("model").value) || 0];

async function start() {
  try {
    models = (await (await ask("models")).json()).models;
  } catch (error) {
    if (error.status !== 401) { document.body.append(`The server does not answer: ${error.message}`); return; }
    element("token-form").hidden = false;
    element("token-message").textContent = token ? "That token is not accepted." : "";
    element("token").focus();
    return;
  }
  if (token) sessionStorage.setItem("token", token);
  element("token-form").hidden = true;
  element("content").hidden = false;
  element("model-choice").hidden = models.length < 2;
  element("model").replaceChildren(...models.map((model, number) => new Option(`${model.name}, version ${model.version}`, number)));
  showModel();
}

function showModel() {
  const model = chosen();
  document.title = `${model.name} – gdas-tf`;
  const { accuracy, parameters, precision } = model.figures;
  const [height, width, channels] = model.image_shape;
  const rows = [
    ["Name, version", `${model.name}, ${model.version}`],
    ["Images", `${width} × ${height}, ${channels === 1 ? "grey" : "colour"}`],
    ["Classes", model.class_names.length],
    ["Test accuracy", accuracy === undefined ? null : `${(100 * accuracy).toFixed(2)} %`],
    ["Parameters", parameters === undefined ? null : parameters.toLocaleString("en")],
    ["Precision", precision],
    ["File", size(model.file_size)],
    ["Threads", model.threads],
    ["Images classified", model.images.toLocaleString("en")],
    ["Mean batch", model.mean_batch === null ? null : `${model.mean_batch.toFixed(1)} images`],
    ["Mean run time", model.mean_batch === null ? null : `${(1000 * model.mean_seconds).toFixed(1)} ms`],
  ];
  element("figures").replaceChildren(...rows.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => {
    const group = document.createElement("div");
    group.append(tag("dt", name), tag("dd", value));
    return group;
  }));
  element("cells").hidden = model.cells.length === 0;
  if (element("cells").dataset.of === model.name + model.version) return;
  element("cells").dataset.of = model.name + model.version;
  for (const cell of model.cells) showCell(model, cell);
}

async function showCell(model, cell) {
  const image = element(cell);
  image.hidden = true; // until it is there: the first time it has to be drawn
  image.onload = () => { image.hidden = false; };
  try {
    const answer = await ask(`models/${model.name}/versions/${model.version}/${cell}.svg`);
    const picture = await answer.blob();
    if (model === chosen() || model.name === chosen().name && model.version === chosen().version) showBlob(image, picture);
  } catch {
    element("cells").hidden = true;
  }
}

function showBlob(image, blob) {
  if (image.src) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
}

async function classify(file) {
  const number = ++newest;
  shown = file;
  const preview = element("preview");
  preview.hidden = true;
  preview.onload = () => { preview.hidden = false; preview.classList.toggle("small", preview.naturalWidth < 96); };
  showBlob(preview, file);
  element("hint").hidden = true;
  say("…");
  element("bars").replaceChildren();
  element("timing").textContent = "";
  const model = chosen();
  const query = new URLSearchParams({ model: model.name, version: model.version, top_k: bars });
  const began = performance.now();
  try {
    const answer = await (await ask(`classify?${query}`, { method: "POST", body: file })).json();
    if (number !== newest) return;
    say("");
    element("bars").replaceChildren(...answer.classes.map(bar));
    element("timing").textContent = `${file.name || "picture"}: answered in ${Math.max(1, Math.round(performance.now() - began))} ms`;
    models = (await (await ask("models")).json()).models;
    showModel();
  } catch (error) {
    if (number === newest) say(error.message, true);
  }
}

function bar({ label, probability }) {
  const item = document.createElement("li");
  const track = tag("span", "", "track");
  const filled = tag("div", "", "bar");
  filled.style.width = `${100 * probability}%`;
  track.append(filled);
  item.append(tag("span", label, "label"), track, tag("span", `${(100 * probability).toFixed(1)} %`, "value"));
  return item;
}

function say(text, bad = false) {
  element("message").textContent = text;
  element("message").hidden = !text;
  element("message").classList.toggle("bad", bad);
}

function tag(name, text, className = "") {
  const created = document.createElement(name);
  created.textContent = text;
  created.className = className;
  return created;
}

const size = (bytes) => bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

function take(files) {
  const file = [...files].find((item) => item.type.startsWith("image/")) || files[0];
  if (file) classify(file);
}

element("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
element("model").addEventListener("change", () => {
  showModel();
  if (shown) classify(shown); // what stands there is the other model's
});
element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value.trim();
  start();
});
for (const name of ["dragenter", "dragover"]) {
  addEventListener(name, (event) => { event.preventDefault(); element("drop").classList.add("over"); });
}
addEventListener("dragleave", (event) => { if (!event.relatedTarget) element("drop").classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  if (!element("content").hidden) take(event.dataTransfer.files);
});
addEventListener("paste", (event) => take(event.clipboardData.files));

start();
