// One job: what was recognised, options, progress, and the result with its pictures laid over it.

import * as api from "./api.js";
import { announce, duration, h, notice, size, still } from "./dom.js";

const STAGES = [
  ["input", "Reading the files"], ["views", "Cutting out the object"], ["orbit", "Finding the cameras"], ["path", "Following the camera's path"],
  ["weights", "Loading the model"], ["encoder", "Looking at the pictures"], ["planes", "Imagining the shape"], ["mesh", "Taking out the surface"],
  ["hull", "Carving the outlines"], ["colour", "First colours"], ["refine", "Fitting to the pictures"], ["atlas", "Unfolding the surface"],
  ["bake", "Painting the texture"], ["sharpen", "Sharpening the texture"], ["files", "Writing the files"], ["turntable", "Filming a turn"],
];
const NAME_OF = new Map(STAGES);
const SHARE = { input: 1, views: 3, orbit: 8, path: 8, hull: 8, colour: 2, refine: 45, atlas: 4, bake: 10, sharpen: 8, files: 4 };
const sentence = (text) => { const first = text.charAt(0).toUpperCase() + text.slice(1); return /[.!?]$/.test(first) ? first : `${first}.`; };

export class JobScreen {
  constructor(place, job, about, { open }) {
    this.about = about;
    this.open = open;
    this.job = job;
    this.excluded = new Set(job.exclude ?? []);
    this.seen = [];
    this.stage = h("section", { class: "stage", "aria-label": "View" });
    this.side = h("aside", { class: "side", "aria-label": "Job" });
    place.replaceChildren(h("div", { class: "work" }, this.stage, this.side));
    document.title = `${job.title} · meshwright`;
    this.#show(job);
    if (!ended(job)) {
      this.stop = api.follow(job.id, (now) => this.#show(now), () => { notice("This job was removed."); location.hash = "#/"; },
        (connected) => { if (!connected) announce("Connection lost, trying again"); this.stage.classList.toggle("lost", !connected); });
    }
  }

  close() {
    this.closed = true;
    this.stop?.();
    clearInterval(this.clock);
    this.viewer?.dispose();
  }

  #show(job) {
    if (this.closed) return;
    const before = this.shownState;
    this.job = job;
    this.shownState = job.state;
    if (job.state === "done") { if (job.task === "inspect") this.#inspected(); else this.#done(); } else if (job.state === "failed" || job.state === "cancelled") this.#failed();
    else this.#running(before);
  }

  #header(sub) {
    return h("header", {}, h("h1", {}, this.job.title), h("p", { class: "muted" }, sub));
  }

  // --- while it runs --------------------------------------------------------------------------------------------------

  #running(before) {
    const { job } = this;
    if (before !== job.state) {
      this.list = h("ol", { class: "stages" });
      this.bar = h("progress", { max: 1, value: 0, "aria-label": "All of it" });
      this.words = h("p", { class: "muted" }, "");
      const stop = h("button", { type: "button", class: "danger", onclick: async () => {
        stop.disabled = true;
        try { this.stop?.(); await api.cancelJob(job.id); this.open(job.id); } catch (error) { notice(sentence(error.message)); stop.disabled = false; }
      } }, "Cancel");
      this.side.replaceChildren(this.#header(job.state === "queued" ? "In the queue" : "Working"), h("div", { class: "big" }, this.bar, this.words), this.list, stop);
      if (!this.viewer) this.stage.replaceChildren(h("div", { class: "wait" }, h("div", {}, h("div", { class: "spin" }), h("p", {}, job.task === "inspect" ? "Looking at your pictures" : "The mesh appears here"))));
      clearInterval(this.clock);
      this.clock = setInterval(() => this.#time(), 1000);
    }
    if (job.stage && !this.seen.includes(job.stage)) this.seen.push(job.stage);
    this.list.replaceChildren(...this.seen.map((name) => {
      const now = name === job.stage && job.fraction < 1;
      return h("li", { class: now ? "now" : "past" }, h("span", { class: "dot", "aria-hidden": "true" }, now ? "" : "✓"), h("span", {}, NAME_OF.get(name) ?? name),
        h("span", { class: "muted" }, now ? `${Math.floor(job.fraction * 100)} %` : ""), now && job.detail ? h("span", { class: "sub" }, job.detail) : null);
    }));
    this.bar.value = overall(job, this.seen);
    announce(job.state === "queued" ? "Waiting in the queue" : NAME_OF.get(job.stage) ?? job.stage);
    this.#time();
    this.#live();
  }

  #time() {
    const { job } = this;
    if (!this.words) return;
    this.words.textContent = job.state === "queued" ? (job.place === 0 ? "Next in line" : `${job.place} ${job.place === 1 ? "job" : "jobs"} before this one`) : `${duration(Date.now() / 1000 - job.started)} so far`;
  }

  // The start shape and the cameras, as soon as there are any, then the shape as the fit goes on.
  async #live() {
    const names = this.job.files.map((file) => file.name);
    if (this.job.task === "inspect" || this.loading) return;
    if (names.includes("start.glb") && !this.viewer) {
      this.loading = true;
      try {
        await this.#makeViewer();
        if (names.includes("views.json")) this.viewer.setViews(await api.getFile(this.job.id, "views.json"), (file) => api.fileUrl(this.job.id, file));
        await this.viewer.load("start", api.fileUrl(this.job.id, "start.glb"));
        if (!still()) this.viewer.setTurning(true);
        this.tag = h("span", { class: "tag" }, "the start: outlines only");
        this.stage.append(h("div", { class: "topbar" }, this.tag));
      } catch (error) { console.warn(error); } finally { this.loading = false; }
      return;
    }
    const fitted = names.filter((name) => /^fit-\d+\.glb$/.test(name)).sort().at(-1);
    if (fitted && fitted !== this.fitted && this.viewer && this.tag) {
      this.loading = true;
      try {
        await this.viewer.load("fit", api.fileUrl(this.job.id, fitted));
        if (this.viewer.meshes.has("mesh")) this.viewer.show("mesh"); // done meanwhile
        this.fitted = fitted;
        this.tag.textContent = "as it is fitted to the pictures";
      } catch (error) { console.warn(error); } finally { this.loading = false; } // the next one may have taken its place
    }
  }

  async #makeViewer() {
    const { Viewer } = await import("./viewer.js");
    if (this.closed) throw new Error("left");
    this.stage.replaceChildren();
    this.viewer?.dispose();
    this.viewer = new Viewer(this.stage, { onView: (number) => this.#viewChanged(number) });
    window.meshwrightViewer = this.viewer; // for tests and the curious
  }

  // --- what was recognised --------------------------------------------------------------------------------------------

  async #inspected() {
    const { job } = this;
    const found = await api.getFile(job.id, "views.json").catch((error) => { notice(sentence(error.message)); return null; });
    if (!found || this.closed) return;
    const kept = () => found.views.length - this.excluded.size;
    const count = h("p", { class: "muted" }, "");
    const make = h("button", { type: "button", class: "primary large", onclick: () => this.#make(make) }, "Make the mesh");
    const update = () => { count.textContent = `${kept()} of ${found.views.length} views will be used`; make.disabled = kept() < 1; };
    const big = h("div", { class: "wait" });
    const grid = h("ul", { class: "strip scroll" }, found.views.map((view, number) => {
      const mark = h("span", { class: "mark", "aria-hidden": "true" }, "✓");
      const button = h("button", { type: "button", class: "thumb", "aria-pressed": "true", "aria-label": `Use picture ${number + 1}, ${view.name}`, title: `${view.name}: the object covers ${Math.round(100 * view.coverage)} %`, onclick: () => {
        if (this.excluded.has(number)) this.excluded.delete(number); else this.excluded.add(number);
        draw();
        update();
      } }, h("img", { src: api.fileUrl(job.id, view.file), alt: "", loading: "lazy" }), h("span", { class: "no", "aria-hidden": "true" }, number + 1), mark);
      const draw = () => {
        const out = this.excluded.has(number);
        button.classList.toggle("out", out);
        button.setAttribute("aria-pressed", String(!out));
        mark.textContent = out ? "×" : "✓";
      };
      draw();
      return h("li", {}, button);
    }));
    update();
    const rigs = { sv3d: "one turn of the camera", orbit: "one turn of the camera", posed: "pictures with their cameras", zero123plus: "Zero123++ views", "zero123plus-v1.1": "Zero123++ views" };
    this.side.replaceChildren(this.#header(`${found.views.length} views: ${rigs[found.rig] ?? found.rig}`),
      h("section", { class: "field" }, h("h2", {}, "Is the object cut out well?"), h("p", { class: "muted" }, "What is white is taken for background. Click a picture that is wrong to leave it out."), grid, count),
      this.#options(),
      found.assumptions.length > 0 ? h("details", {}, h("summary", {}, "What was assumed"), h("ul", { class: "said" }, found.assumptions.map((text) => h("li", {}, text)))) : "",
      h("div", { class: "last" }, make));
    clearInterval(this.clock);
    this.stage.replaceChildren(big);
    try {
      await this.#makeViewer();
      this.viewer.setViews(found, (file) => api.fileUrl(job.id, file));
      const reach = Math.max(...this.viewer.views.map((view) => view.position.length()));
      this.viewer.camera.position.set(0.9, 0.75, 1.5).normalize().multiplyScalar(2.5 * reach);
      this.viewer.camera.far = 40 * reach;
      this.viewer.camera.near = reach / 50;
      this.viewer.camera.updateProjectionMatrix();
      if (!still()) this.viewer.setTurning(true);
      this.stage.append(h("div", { class: "topbar" }, h("span", { class: "tag" }, "where the cameras stood")));
    } catch (error) { this.#noWebgl(error); }
    announce(`${found.views.length} views recognised`);
  }

  #options() {
    const choice = (title, name, choices, checked) => h("fieldset", {}, h("legend", {}, title), h("div", { class: "choices" }, choices.map(([value, words]) =>
      h("label", {}, h("input", { type: "radio", name, value, checked: value === checked }), h("span", {}, words)))));
    const given = this.job.options ?? {};
    this.form = h("form", { class: "field", onsubmit: (event) => event.preventDefault() },
      choice("Fit to the pictures", "refine", [["off", "Outlines only"], ["fast", "Fast"], ["full", "Full"]], given.refine ?? "fast"),
      h("details", {}, h("summary", {}, "More options"), h("div", { class: "inside" },
        choice("Texture", "texture-size", [["1024", "1k"], ["2048", "2k"], ["4096", "4k"]], String(given["texture-size"] ?? 2048)),
        h("label", { class: "field" }, h("span", {}, "Triangles"), h("select", { name: "faces" }, [["", "As they come"], ["100000", "About 100,000"], ["50000", "About 50,000"], ["20000", "About 20,000"], ["5000", "About 5,000"]].map(([value, words]) => h("option", { value, selected: value === String(given.faces ?? "") }, words)))),
        this.about.models.length > 1 ? h("label", { class: "field" }, h("span", {}, "Start from"), h("select", { name: "model" }, this.about.models.map((name) => h("option", { value: name }, name === "none" ? "the outlines" : name)))) : null,
        h("label", { class: "check" }, h("input", { type: "checkbox", name: "turntable" }), h("span", {}, "Film of one turn (mp4)")))));
    return this.form;
  }

  async #make(button) {
    const data = new FormData(this.form);
    const options = { ...this.job.options, refine: data.get("refine"), "texture-size": Number(data.get("texture-size")), format: ["glb", "obj", "ply", "stl"] };
    delete options.faces;
    if (data.get("faces")) options.faces = Number(data.get("faces"));
    if (data.get("model") && data.get("model") !== "none") options.model = data.get("model");
    if (data.get("turntable")) options.turntable = true;
    button.disabled = true;
    try {
      const made = await api.createJob({ from: this.job.id, task: "reconstruct", options, exclude: [...this.excluded] });
      this.open(made.id);
    } catch (error) { notice(sentence(error.message)); button.disabled = false; }
  }

  // --- the result -----------------------------------------------------------------------------------------------------

  async #done() {
    clearInterval(this.clock);
    const { job } = this;
    const [views, report] = await Promise.all([api.getFile(job.id, "views.json"), api.getFile(job.id, "report.json").catch(() => null)]).catch((error) => { notice(sentence(error.message)); return [null, null]; });
    if (!views || this.closed) return;
    this.views = views;
    const url = (name) => api.fileUrl(job.id, name);
    const bytes = new Map(job.files.map((file) => [file.name, file.bytes]));
    const download = (name, words, primary) => bytes.has(name) ? h("a", { class: primary ? "button primary large" : "button", href: `${url(name)}?download`, download: "" }, words, primary ? ` · ${size(bytes.get(name))}` : "") : null;
    this.thumbs = views.views.map((view, number) => h("button", { type: "button", class: "thumb", "aria-pressed": "false", "aria-label": `${view.psnr_db === null ? number + 1 : `${view.psnr_db.toFixed(0)} dB`}: compare with picture ${number + 1}, ${view.name}`, title: view.psnr_db === null ? view.name : `${view.name}: ${view.psnr_db.toFixed(1)} dB`, onclick: () => this.#compare(number) },
      h("img", { src: url(view.file), alt: "", loading: "lazy" }), h("span", { class: "no", "aria-hidden": "true" }, view.psnr_db === null ? number + 1 : `${view.psnr_db.toFixed(0)} dB`)));
    const numbers = report && h("dl", { class: "numbers" },
      fact("Triangles", report.mesh.triangles.toLocaleString("en")), fact("Closed", report.mesh.watertight ? "yes" : "no"),
      fact("Likeness", `${report.mean.psnr_db.toFixed(1)} dB`, `the start: ${report.start.mean.psnr_db.toFixed(1)} dB`),
      fact("Outlines agree", `${(100 * report.mean.silhouette_iou).toFixed(1)} %`, `took ${duration(job.ended - job.started)}`));
    const said = [...(report?.warnings ?? []), ...views.assumptions];
    this.side.replaceChildren(this.#header(`${views.views.length} views · ${duration(job.ended - job.started)}`),
      h("section", { class: "field" }, h("h2", { class: "visually-hidden" }, "Download"), h("div", { class: "downloads" }, download("mesh.glb", "Download GLB", true), download("mesh-obj.zip", "OBJ"), download("mesh.ply", "PLY"), download("mesh.stl", "STL"), download("turntable.mp4", "Film"), download("preview.png", "Preview"), download("report.json", "Report"))),
      h("section", { class: "field" }, h("h2", {}, "Lay a picture over the mesh"), h("ul", { class: "strip scroll" }, this.thumbs.map((thumb) => h("li", {}, thumb)))),
      numbers || "",
      said.length > 0 ? h("details", {}, h("summary", {}, "What was assumed"), h("ul", { class: "said" }, said.map((text) => h("li", {}, text)))) : "",
      h("details", {}, h("summary", {}, "Make it again with other options"), h("div", { class: "inside" }, this.#options(), again(this))),
      h("button", { type: "button", class: "quiet danger", onclick: async () => { try { await api.removeJob(job.id); location.hash = "#/"; } catch (error) { notice(sentence(error.message)); } } }, "Remove this job"));
    function fact(name, value, small) { return h("div", {}, h("dt", {}, name), h("dd", {}, value, small ? h("small", {}, small) : null)); }
    function again(self) { const button = h("button", { type: "button", onclick: () => self.#make(button) }, "Make it again"); return button; }
    try {
      const fresh = !this.viewer;
      if (fresh) await this.#makeViewer(); else { this.stage.querySelectorAll(".topbar, .wait").forEach((old) => old.remove()); this.viewer.setTurning(false); }
      this.viewer.setViews(views, url);
      if (!this.viewer.meshes.has("start") && bytes.has("start.glb")) await this.viewer.load("start", url("start.glb"));
      await this.viewer.load("mesh", url("mesh.glb"));
      if (fresh) this.viewer.frame();
      this.#toolbar(bytes.has("start.glb"));
    } catch (error) { this.#noWebgl(error, url("preview.png")); }
    announce("The mesh is done");
  }

  #noWebgl(error, preview) {
    if (this.closed) return;
    console.warn(error);
    this.stage.replaceChildren(h("div", { class: "wait" }, preview ? h("img", { src: preview, alt: "The pictures, the start and the result" }) : h("p", {}, "This browser shows no 3D (WebGL is off). Downloads work all the same.")));
  }

  #toolbar(hasStart) {
    const toggle = (words, on, act, label) => {
      const button = h("button", { type: "button", "aria-pressed": String(on), title: label ?? words, onclick: () => {
        const now = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(now));
        act(now);
      } }, words);
      return button;
    };
    const group = (label, choices, chosen, act) => {
      const buttons = choices.map(([value, words]) => h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => {
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === buttons[choices.findIndex(([v]) => v === value)]));
        act(value);
      } }, words));
      return h("div", { class: "segments", role: "group", "aria-label": label }, buttons);
    };
    this.bottom = h("div", { class: "bar" },
      group("Surface", [["unlit", "True colours"], ["lit", "Lit"], ["normals", "Normals"]], "unlit", (mode) => this.viewer.setMode(mode)),
      h("div", { class: "segments", role: "group", "aria-label": "Show" }, toggle("Wireframe", false, (on) => this.viewer.setWire(on)), toggle("Cameras", true, (on) => this.viewer.setCameras(on)), toggle("Turn", false, (on) => this.viewer.setTurning(on))));
    this.top = h("div", { class: "topbar" },
      hasStart ? group("Before or after", [["start", "Before"], ["mesh", "After"]], "mesh", (name) => this.viewer.show(name)) : h("span"),
      h("div", { class: "segments" }, h("button", { type: "button", onclick: () => { this.viewer.leavePicture(); this.viewer.frame(); } }, "Whole mesh")));
    this.stage.append(this.top, this.bottom);
  }

  #compare(number) {
    if (!this.viewer) return;
    this.viewer.enterPicture(number);
    this.stage.scrollIntoView({ block: "nearest", behavior: still() ? "auto" : "smooth" });
  }

  // The viewer arrived at a picture's camera, or left it (null).
  #viewChanged(number) {
    this.thumbs?.forEach((thumb, other) => thumb.setAttribute("aria-pressed", String(other === number)));
    this.stage.classList.toggle("posed", number !== null);
    const parts = [...this.stage.querySelectorAll(".overlay, .divider, .pose-bar")];
    if (number === null) {
      parts.forEach((part) => part.remove());
      if (this.bottom) this.bottom.hidden = false;
      return;
    }
    if (!this.views) return;
    const view = this.views.views[number];
    const rect = this.viewer.pictureRect();
    parts.forEach((part) => part.remove());
    this.split ??= 0.5;
    const image = h("img", { class: "overlay", alt: "", src: api.fileUrl(this.job.id, view.file) });
    Object.assign(image.style, { left: `${rect.left}px`, top: `${rect.top}px`, width: `${rect.width}px`, height: `${rect.height}px` });
    const divider = h("button", { type: "button", class: "divider", role: "slider", "aria-label": "Picture to the left, mesh to the right", "aria-valuemin": "0", "aria-valuemax": "100" });
    const place = () => {
      image.classList.toggle("difference", this.difference === true);
      image.style.clipPath = this.difference ? "none" : `inset(0 ${(1 - this.split) * 100}% 0 0)`;
      divider.hidden = this.difference === true;
      Object.assign(divider.style, { left: `${rect.left + this.split * rect.width}px`, top: `${rect.top}px`, height: `${rect.height}px` });
      divider.setAttribute("aria-valuenow", String(Math.round(this.split * 100)));
    };
    divider.addEventListener("pointerdown", (event) => {
      divider.setPointerCapture(event.pointerId);
      divider.onpointermove = (move) => {
        this.split = Math.min(1, Math.max(0, (move.clientX - this.stage.getBoundingClientRect().left - rect.left) / rect.width));
        place();
      };
    });
    divider.addEventListener("pointerup", () => { divider.onpointermove = null; });
    divider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.05, ArrowRight: 0.05, Home: -1, End: 1 }[event.key];
      if (step) { event.preventDefault(); this.split = Math.min(1, Math.max(0, this.split + step)); place(); }
    });
    const total = this.views.views.length;
    const difference = h("button", { type: "button", "aria-pressed": String(this.difference === true), onclick: () => {
      this.difference = !this.difference;
      difference.setAttribute("aria-pressed", String(this.difference));
      place();
    } }, "Difference");
    const bar = h("div", { class: "bar pose-bar" }, h("div", { class: "segments", role: "group", "aria-label": "Compare" },
      h("button", { type: "button", "aria-label": "Previous picture", onclick: () => this.#compare((number + total - 1) % total) }, "◂"),
      h("span", { class: "muted row", title: view.name }, `${number + 1} / ${total}`),
      h("button", { type: "button", "aria-label": "Next picture", onclick: () => this.#compare((number + 1) % total) }, "▸"),
      difference, h("button", { type: "button", onclick: () => this.viewer.leavePicture() }, "Back to 3D")));
    if (this.bottom) this.bottom.hidden = true;
    place();
    this.stage.append(image, divider, bar);
    announce(`Picture ${number + 1} of ${total} over the mesh`);
  }

  // --- when it failed -------------------------------------------------------------------------------------------------

  #failed() {
    clearInterval(this.clock);
    const { job } = this;
    const cancelled = job.state === "cancelled";
    this.viewer?.dispose();
    this.viewer = null;
    this.stage.replaceChildren(h("div", { class: "wait" }, h("p", {}, cancelled ? "Cancelled" : "No mesh came out")));
    const retry = h("button", { type: "button", class: "primary", onclick: async () => {
      try { this.open((await api.createJob({ from: job.id, task: job.task, options: job.options, exclude: job.exclude })).id); } catch (error) { notice(sentence(error.message)); }
    } }, "Try again");
    this.side.replaceChildren(this.#header(cancelled ? "Cancelled" : "Failed"),
      cancelled ? h("p", {}, "You cancelled this job. Its pictures are still here.") : h("div", { class: "problem", role: "alert" }, h("h2", {}, "What went wrong"), h("p", {}, sentence(job.error ?? "It is not known why"))),
      h("div", { class: "row" }, retry, h("a", { class: "button", href: "#/" }, "Choose other pictures")));
    announce(cancelled ? "Cancelled" : `Failed: ${job.error}`);
  }
}

const ended = (job) => ["done", "failed", "cancelled"].includes(job.state);

// All stages together, by what they take on a common job; what was skipped does not count.
function overall(job, seen) {
  const order = Object.keys(SHARE);
  const total = Object.values(SHARE).reduce((a, b) => a + b, 0);
  const at = order.indexOf(job.stage);
  if (job.state !== "running" || at < 0) return seen.length > 1 ? 0.5 : 0;
  const past = order.slice(0, at).reduce((sum, name) => sum + SHARE[name], 0);
  return (past + SHARE[job.stage] * job.fraction) / total;
}
