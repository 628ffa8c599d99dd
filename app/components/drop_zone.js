// Sends a file in chunks, each with its SHA-256, and goes on where it stopped: after a lost connection by
// itself, after a reload when the same file is dropped again.
const WRITE = { "X-Paredown": "1" };
const TRIES = 8, EDGE_BYTES = 1 << 20;

export default function ({ data, parentElement, setTriggerValue }) {
  const find = (name) => parentElement.querySelector(`.${name}`);
  const zone = (parentElement.zone ??= { sending: null });
  zone.data = data; // the settings beside the zone may change until a file is dropped
  find("title").textContent = data.title;
  find("detail").textContent = data.detail;
  const input = find("input");
  input.accept = data.accept;

  const show = (state, text = "") => {
    parentElement.querySelector("section").dataset.state = state;
    find("status").textContent = text;
  };
  if (zone.refused && zone.refused !== data.blocked) show("idle", (zone.refused = "")); // it was said

  async function call(path, options) {
    const response = await fetch(`/api/uploads${path}`, options);
    if (response.ok) return response.status === 204 ? null : response.json();
    const { detail } = await response.json().catch(() => ({ detail: response.statusText }));
    const sentence = typeof detail === "string" ? detail : "The settings beside the drop zone do not fit.";
    throw Object.assign(new Error(sentence), { status: response.status });
  }

  async function announce(file) {
    const said = { ...zone.data.said, file_name: file.name, size_bytes: file.size };
    const body = JSON.stringify({ ...said, fingerprint: await fingerprint(file) });
    const headers = { ...WRITE, "Content-Type": "application/json" };
    return call("", { method: "POST", headers, body });
  }

  async function put(upload, file, sending) {
    const chunk = file.slice(upload.received_bytes, upload.received_bytes + upload.chunk_bytes);
    const digest = await sha256(chunk);
    const headers = digest ? { ...WRITE, "X-Chunk-SHA256": digest } : WRITE;
    const path = `/${upload.id}?offset=${upload.received_bytes}`;
    return call(path, { method: "PUT", headers, body: chunk, signal: sending.signal });
  }

  async function sendAll(upload, file, sending) {
    const began = performance.now(), before = upload.received_bytes;
    for (let failures = 0; upload.received_bytes < file.size; ) {
      try {
        upload = await put(upload, file, sending);
        failures = 0;
      } catch (error) {
        const permanent = error.status && ![409, 422].includes(error.status) && error.status < 500;
        if (sending.signal.aborted || permanent || ++failures > TRIES) throw error;
        show("sending", "The connection was lost; trying again");
        await new Promise((resolve) => setTimeout(resolve, 500 * failures));
        upload = await call(`/${upload.id}`, {}).catch(() => upload);
        continue;
      }
      const share = upload.received_bytes / file.size;
      const rate = (upload.received_bytes - before) / 2 ** 20 / ((performance.now() - began) / 1000);
      find("bar").firstElementChild.style.width = `${100 * share}%`;
      show("sending", `${Math.floor(100 * share)} % of ${size(file.size)} · ${rate.toFixed(0)} MiB/s`);
    }
    return upload;
  }

  async function giveUp(upload, tries = TRIES) { // the chunk that was on its way may still hold it
    const removed = call(`/${upload.id}`, { method: "DELETE", headers: WRITE });
    const error = await removed.then(() => null, (error) => error);
    if (error?.status === 409 && tries) setTimeout(() => giveUp(upload, tries - 1), 500);
  }

  async function send(file) {
    if (!file || zone.sending) return;
    input.value = "";
    if (zone.data.blocked) return show("idle", (zone.refused = zone.data.blocked));
    const sending = (zone.sending = new AbortController());
    let upload = null;
    find("name").textContent = file.name;
    find("bar").firstElementChild.style.width = "0";
    show("sending", `0 % of ${size(file.size)}`);
    try {
      upload = await announce(file); // is not broken off: what it began must be known to be removed
      sending.signal.throwIfAborted();
      upload = await sendAll(upload, file, sending);
      const { id } = await call(`/${upload.id}/finish`, { method: "POST", headers: WRITE });
      show("idle");
      setTriggerValue("uploaded", id);
    } catch (error) {
      if (sending.signal.aborted) {
        if (upload) giveUp(upload);
        show("idle", "Cancelled; nothing was kept.");
      } else {
        const again = upload ? " Drop the same file again to go on." : "";
        show("idle", `Not uploaded: ${error.message}${again}`);
      }
    } finally {
      zone.sending = null;
    }
  }

  input.onchange = () => send(input.files[0]);
  find("choose").onclick = () => input.click();
  find("cancel").onclick = () => zone.sending?.abort();
  const section = parentElement.querySelector("section");
  section.ondragover = (event) => { event.preventDefault(); section.classList.add("over"); };
  section.ondragleave = () => section.classList.remove("over");
  section.ondrop = (event) => {
    event.preventDefault();
    section.classList.remove("over");
    send(event.dataTransfer.files[0]);
  };
}

// Hex, or null: browsers hash only on https and on this machine.
async function sha256(blob) {
  if (!crypto.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Tells a file from another of its name and length: when it was changed, and how it begins and ends.
async function fingerprint(file) {
  const edges = new Blob([file.slice(0, EDGE_BYTES), file.slice(-EDGE_BYTES)]);
  return `${file.lastModified}-${(await sha256(edges)) ?? ""}`;
}

function size(bytes) {
  const [factor, unit] = bytes >= 2 ** 30 ? [2 ** 30, "GiB"] : [2 ** 20, "MiB"];
  return `${(bytes / factor).toFixed(bytes >= factor * 10 ? 0 : 1)} ${unit}`;
}
