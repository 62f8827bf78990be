// The page: routes, theme, token, and the start screen. A job's screen is in job.js.

import * as api from "./api.js";
import { announce, h, notice, size } from "./dom.js";
import { chosenFiles, droppedFiles } from "./drop.js";
import { JobScreen } from "./job.js";

const main = document.getElementById("main");
let screen = null;
let about = null;

const ART = '<svg viewBox="0 0 96 72" width="96" height="72" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="2.500" stroke-linejoin="round"><rect x="4" y="20" width="30" height="24" rx="3"/><rect x="9" y="13" width="30" height="24" rx="3" fill="var(--panel)"/><rect x="14" y="6" width="30" height="24" rx="3" fill="var(--panel)"/><path d="m18 26 8-9 6 6 4-3 5 6"/><path d="M48 40h10m-4-5 5 5-5 5" stroke-linecap="round"/><path d="M76 24 92 33v19L76 61 60 52V33z"/><path d="m60 33 16 9 16-9M76 42v19"/></svg>';

async function start() {
  document.getElementById("theme").addEventListener("click", switchTheme);
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(null, "", "#/");
    try { await api.openSession(token); } catch (error) { notice(error.message); }
  }
  addEventListener("hashchange", route);
  // A file dropped beside the zone must not replace the page.
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => event.preventDefault());
  await route();
}

function switchTheme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* private windows */ }
}
try { const theme = localStorage.getItem("theme"); if (theme) document.documentElement.dataset.theme = theme; } catch { /* private windows */ }

async function route() {
  screen?.close?.();
  screen = null;
  const found = /^#\/([0-9a-f]{32})$/.exec(location.hash);
  try {
    about ??= await api.about();
    if (found) {
      const job = await api.getJob(found[1]);
      screen = new JobScreen(main, job, about, { open });
    } else {
      screen = await startScreen();
    }
  } catch (error) {
    if (error.status === 401) tokenScreen();
    else problemScreen(error);
  }
}

function open(id) {
  if (location.hash === `#/${id}`) route();
  else location.hash = `#/${id}`;
}

function problemScreen(error) {
  document.title = "meshwright";
  main.replaceChildren(h("div", { class: "start" }, h("div", { class: "problem", role: "alert" },
    h("h2", {}, error.status === 404 ? "This job is not here" : "Something is in the way"), h("p", {}, sentence(error.message)),
    h("div", { class: "row" }, h("a", { class: "button", href: "#/" }, "To the start"), h("button", { type: "button", onclick: route }, "Try again")))));
}

function tokenScreen() {
  const input = h("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
  main.replaceChildren(h("form", { class: "token card", onsubmit: async (event) => {
    event.preventDefault();
    try { await api.openSession(input.value.trim()); await route(); } catch (error) { notice(sentence(error.message)); input.focus(); }
  } }, h("h1", {}, "Token"), h("label", { for: "token" }, "This server asks for its token. It was printed when the server started."), input,
  h("button", { class: "primary" }, "Open")));
  input.focus();
}

export function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

async function startScreen() {
  document.title = "meshwright";
  const files = h("input", { type: "file", multiple: true, class: "visually-hidden", tabIndex: -1, "aria-hidden": "true", onchange: () => send(chosenFiles(files)) });
  const folder = h("input", { type: "file", class: "visually-hidden", tabIndex: -1, "aria-hidden": "true", webkitdirectory: true, onchange: () => send(chosenFiles(folder)) });
  const art = h("div", { class: "art" });
  art.innerHTML = ART;
  const zone = h("section", { class: "drop", "aria-label": "Pictures" }, art,
    h("strong", {}, "Drop pictures of one object here"),
    h("p", { class: "kinds" }, "A film of one turn, photographs with cameras, a Zero123++ sheet, a folder or a zip."),
    h("div", { class: "row center" },
      h("button", { type: "button", class: "primary large", onclick: () => files.click() }, "Choose files"),
      h("button", { type: "button", class: "large", onclick: () => folder.click() }, "Choose a folder")),
    about.examples.length > 0 ? h("button", { type: "button", class: "quiet", onclick: example }, "No pictures at hand? Try the strawberry") : null, files, folder);
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    send(await droppedFiles(event.dataTransfer));
  });
  const gallery = h("section", { "aria-labelledby": "earlier", hidden: true });
  main.replaceChildren(h("div", { class: "start" },
    h("div", { class: "hero" }, h("h1", {}, "Pictures in, a 3D mesh out"),
      h("p", {}, "See how true it is: every picture can be laid over the mesh, from the very camera that took it.")),
    zone, gallery,
    h("div", { class: "facts" },
      h("div", {}, h("b", {}, "It stays here"), "Pictures and meshes are kept on this computer and nowhere else."),
      h("div", {}, h("b", {}, "What to send"), "One object, all around it, with a plain background or transparency. Six views are enough; twenty are better."),
      h("div", {}, h("b", {}, "What you get"), "A closed, textured mesh as GLB, OBJ, PLY and STL, with numbers that say how well it fits."))));
  await list();
  const timer = setInterval(() => list().catch(() => {}), 4000);

  async function list() {
    const jobs = (await api.listJobs()).slice(0, 24);
    gallery.hidden = jobs.length === 0;
    gallery.replaceChildren(h("h2", { id: "earlier" }, "Your jobs"), h("ul", { class: "jobs" }, jobs.map(card)));
  }

  function card(job) {
    const names = job.files.map((file) => file.name);
    const shown = ["view-000.jpg", "live.jpg"].find((name) => names.includes(name));
    const words = { queued: "waiting", running: "working", done: job.task === "inspect" ? "ready to make" : "done", failed: "failed", cancelled: "cancelled" };
    const mesh = job.files.find((file) => file.name === "mesh.glb");
    return h("li", { class: "card" },
      h("a", { href: `#/${job.id}` },
        h("div", { class: "pic" }, shown ? h("img", { src: api.fileUrl(job.id, shown), alt: "", loading: "lazy" }) : "no picture yet"),
        h("div", { class: "text" }, h("div", { class: "name" }, job.title),
          h("div", { class: "sub" }, h("span", { class: `state ${job.state}` }, words[job.state]), mesh ? ` · ${size(mesh.bytes)}` : "", ` · ${new Date(job.created * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`))),
      h("button", { type: "button", "aria-label": `Remove ${job.title}`, title: "Remove", onclick: async () => {
        try { await api.removeJob(job.id); await list(); announce(`${job.title} removed`); } catch (error) { notice(sentence(error.message)); }
      } }, "×"));
  }

  async function example() {
    try { open((await api.createJob({ example: about.examples[0], task: "inspect" })).id); } catch (error) { notice(sentence(error.message)); }
  }

  async function send(chosen) {
    if (chosen.length === 0) return;
    const bytes = chosen.reduce((sum, { file }) => sum + file.size, 0);
    if (bytes > about.limits.upload_bytes) { notice(`These files are ${size(bytes)} together; the server takes ${size(about.limits.upload_bytes)}. Send fewer or smaller ones.`); return; }
    if (chosen.length > about.limits.upload_files) { notice(`These are ${chosen.length} files; the server takes ${about.limits.upload_files}.`); return; }
    const abort = new AbortController();
    const bar = h("progress", { max: 1, value: 0, "aria-label": "Upload" });
    const text = h("p", { class: "kinds" }, `${chosen.length === 1 ? chosen[0].path : `${chosen.length} files`}, ${size(bytes)}`);
    const before = [...zone.childNodes];
    zone.replaceChildren(h("strong", {}, "Sending"), text, bar, h("button", { type: "button", onclick: () => abort.abort() }, "Cancel"));
    try {
      const made = await api.upload(chosen, { task: "inspect" }, (fraction) => { bar.value = fraction; }, abort.signal);
      open(made.id);
    } catch (error) {
      zone.replaceChildren(...before);
      files.value = folder.value = "";
      notice(sentence(error.message));
    }
  }

  return { close: () => clearInterval(timer) };
}

start();
