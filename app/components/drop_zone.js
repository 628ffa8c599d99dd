// Sends a file in chunks, each with its SHA-256, and goes on where it stopped after a lost connection.
const WRITE = { "X-Paredown": "1" };
const TRIES = 8;

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

  async function call(path, options) {
    const response = await fetch(`/api/uploads${path}`, options);
    if (response.ok) return response.status === 204 ? null : response.json();
    const { detail } = await response.json().catch(() => ({ detail: response.statusText }));
    const sentence = typeof detail === "string" ? detail : "The settings beside the drop zone do not fit.";
    throw Object.assign(new Error(sentence), { status: response.status });
  }

  async function put(upload, file, sending) {
    const chunk = file.slice(upload.received_bytes, upload.received_bytes + upload.chunk_bytes);
    const headers = { ...WRITE };
    if (crypto.subtle) { // only on https and on this machine
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await chunk.arrayBuffer()));
      headers["X-Chunk-SHA256"] = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }
    const path = `/${upload.id}?offset=${upload.received_bytes}`;
    return call(path, { method: "PUT", headers, body: chunk, signal: sending.signal });
  }

  async function sendAll(upload, file, sending) {
    const began = performance.now();
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
      const rate = upload.received_bytes / 1.048576e6 / ((performance.now() - began) / 1000);
      find("bar").firstElementChild.style.width = `${100 * share}%`;
      show("sending", `${Math.floor(100 * share)} % of ${size(file.size)} · ${rate.toFixed(0)} MiB/s`);
    }
    return upload;
  }

  async function send(file) {
    if (!file || zone.sending) return;
    const sending = (zone.sending = new AbortController());
    let upload = null;
    find("name").textContent = file.name;
    find("bar").firstElementChild.style.width = "0";
    show("sending", `0 % of ${size(file.size)}`);
    try {
      const body = JSON.stringify({ ...zone.data.said, file_name: file.name, size_bytes: file.size });
      const headers = { ...WRITE, "Content-Type": "application/json" };
      upload = await call("", { method: "POST", headers, body, signal: sending.signal });
      upload = await sendAll(upload, file, sending);
      const { id } = await call(`/${upload.id}/finish`, { method: "POST", headers: WRITE });
      show("idle");
      setTriggerValue("uploaded", id);
    } catch (error) {
      if (upload) call(`/${upload.id}`, { method: "DELETE", headers: WRITE }).catch(() => {});
      show("idle", sending.signal.aborted ? "Cancelled; nothing was kept." : `Not uploaded: ${error.message}`);
    } finally {
      zone.sending = null;
      input.value = "";
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

function size(bytes) {
  const [factor, unit] = bytes >= 2 ** 30 ? [2 ** 30, "GiB"] : [2 ** 20, "MiB"];
  return `${(bytes / factor).toFixed(bytes >= factor * 10 ? 0 : 1)} ${unit}`;
}
