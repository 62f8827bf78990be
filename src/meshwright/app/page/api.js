// The job API. Every failure is an Error whose message is a sentence for people.

export class ApiError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

const UNREACHABLE = "The server cannot be reached. If it was stopped, start it again: your jobs are kept.";

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, UNREACHABLE);
  }
  if (!response.ok) {
    let message = `The server answered ${response.status}.`;
    try { message = (await response.json()).error; } catch { /* no sentence came */ }
    throw new ApiError(response.status, message);
  }
  return response.status === 204 ? null : response.json();
}

const json = (method, body) => ({ method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export const about = () => answer("/about");
export const listJobs = async () => (await answer("/jobs")).jobs;
export const getJob = (id) => answer(`/jobs/${id}`);
export const createJob = (wanted) => answer("/jobs", json("POST", wanted));
export const cancelJob = (id) => answer(`/jobs/${id}/cancel`, { method: "POST" });
export const removeJob = (id) => answer(`/jobs/${id}`, { method: "DELETE" });
export const openSession = (token) => answer("/session", json("POST", { token }));
export const fileUrl = (id, name) => `/jobs/${id}/${encodeURIComponent(name)}`;
export const getFile = (id, name) => answer(fileUrl(id, name));

// Send files and say how far they are; aborted by the signal. XMLHttpRequest, because fetch cannot tell.
export function upload(files, fields, onProgress, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  for (const { file, path } of files) form.append("files", file, path);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/jobs");
    request.upload.addEventListener("progress", (event) => onProgress(event.lengthComputable ? event.loaded / event.total : 0));
    request.addEventListener("load", () => {
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { /* handled below */ }
      if (request.status === 202) resolve(body);
      else reject(new ApiError(request.status, body.error ?? `The server answered ${request.status}.`));
    });
    request.addEventListener("error", () => reject(new ApiError(0, "The upload broke off. The files may be too large for the server, or it was stopped.")));
    request.addEventListener("abort", () => reject(new ApiError(-1, "The upload was cancelled.")));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

// Follow a job until it has ended: onJob(job) for each change. Survives a restart of the server. Returns a stop function.
export function follow(id, onJob, onGone, onConnection) {
  const source = new EventSource(`/jobs/${id}/events`);
  let stopped = false;
  const stop = () => { stopped = true; source.close(); };
  source.addEventListener("job", (event) => {
    if (stopped) return;
    onConnection(true);
    const job = JSON.parse(event.data);
    if (["done", "failed", "cancelled"].includes(job.state)) stop();
    onJob(job);
  });
  source.addEventListener("gone", () => { stop(); onGone(); });
  source.addEventListener("error", () => {
    if (stopped) return;
    onConnection(false);
    if (source.readyState === EventSource.CLOSED) {
      // The server answered with an error: it may be starting, or the job is gone.
      setTimeout(async () => {
        if (stopped) return;
        try { await getJob(id); } catch (error) { if (error.status === 404) { stop(); onGone(); return; } }
        if (!stopped) { stop(); again.stop = follow(id, onJob, onGone, onConnection); }
      }, 2000);
    }
  });
  const again = { stop: null };
  return () => { stop(); again.stop?.(); };
}
