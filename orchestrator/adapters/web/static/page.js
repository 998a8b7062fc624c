// Keeps a page up to date: parts of a run and its log as the server sends them; a list by loading
// it again when the server says that it changed. All markup comes escaped from the server.
"use strict";

const MAX_LINES = 2000;
const AGAIN_MS = 10000;
const LEAST_MS = 2000;
const log = document.getElementById("log");
const filter = document.getElementById("log-filter");
const follow = document.getElementById("log-follow");
const connection = document.getElementById("connection");

function say(text) {
  if (connection.textContent !== text) connection.textContent = text;
}

function matches(line) {
  return line.textContent.toLowerCase().includes(filter.value.toLowerCase());
}

function toEnd() {
  if (follow.checked) log.scrollTop = log.scrollHeight;
}

function addLines(lines, missed) {
  if (missed) lines.unshift(`<div class="line note">(${missed} lines not shown)</div>`);
  log.insertAdjacentHTML("beforeend", lines.join(""));
  for (let line = log.lastElementChild, n = lines.length; line && n; n--) {
    line.hidden = !matches(line);
    line = line.previousElementSibling;
  }
  while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
  toEnd();
}

function takeParts(message) {
  for (const [id, html] of Object.entries(message.parts)) {
    const element = document.getElementById(id);
    if (element) element.innerHTML = html;
  }
  if (message.anew) log.replaceChildren();
  if (message.lines.length) addLines(message.lines, message.missed);
}

let loading = false;
let wanted = false;

async function loadList() {
  wanted = true;
  if (loading) return;
  loading = true;
  while (wanted) {
    wanted = false;
    try {
      const answer = await fetch(location.href);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const list = page.getElementById("list");
      if (answer.ok && list) replaceList(list);
    } catch { /* the stream says when the server answers again */ }
    await new Promise((done) => setTimeout(done, LEAST_MS));
  }
  loading = false;
}

function replaceList(list) {
  const old = document.getElementById("list");
  const chosen = new Set([...old.querySelectorAll("input:checked")].map((box) => box.value));
  const focused = old.contains(document.activeElement) && document.activeElement;
  if (focused && focused.href === undefined && focused.type !== "checkbox") return;
  const at = focused ? focused.href || focused.value : null;
  old.replaceChildren(...list.childNodes);
  for (const box of old.querySelectorAll("input[type=checkbox]")) box.checked = chosen.has(box.value);
  if (at) [...old.querySelectorAll("a, input")].find((each) => (each.href || each.value) === at)?.focus();
}

function listen(address) {
  const source = new EventSource(address);
  source.onopen = () => say("live");
  source.onmessage = (event) => {
    if ("list" in document.body.dataset) loadList();
    else takeParts(JSON.parse(event.data));
  };
  source.onerror = () => {
    say("not connected");
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS, address);
  };
}

if (log) {
  filter.addEventListener("input", () => {
    for (const line of log.children) line.hidden = !matches(line);
    toEnd();
  });
  follow.addEventListener("change", toEnd);
  log.addEventListener("scroll", () => {
    follow.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  });
  toEnd();
}
if (document.body.dataset.events) listen(document.body.dataset.events);
