// Where pictures come in: dropped, pasted or chosen. The files stay here until Python asks for them, piece by
// piece; the messages are those of inbox.py. Each widget gets a zone of its own, however many views show it.

const HTML = `
  <div class="p3v-area" tabindex="0" role="group" aria-label="Drop pictures here, or paste them">
    Drop pictures here, paste them, or
    <button type="button" class="jupyter-widgets jupyter-button widget-button p3v-choose">choose…</button>
    <input type="file" accept="image/*" multiple hidden>
    <div class="p3v-progress" hidden><progress aria-label="File on its way"></progress> <span></span></div>
  </div>`;

const PATIENCE = 10000; // ms

const newId = () => Math.random().toString(36).slice(2);

// What is typed while Python still deals with an earlier key waits in the page, and Python may deal with the messages
// of several widgets at once. So until Python has all that was typed, "run" would ask half a question. A widget's
// model counts its messages that are on the way; where it should not (_models and _pending_msgs are ipywidgets' own
// affair), or where a message was lost, "run" goes off all the same.
async function allHasArrived(manager) {
  const end = Date.now() + PATIENCE;
  while (Date.now() < end) {
    const models = await Promise.allSettled(Object.values(manager?._models ?? {}));
    if (!models.some(({ value }) => value?._pending_msgs > 0)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export default () => {
  const files = new Map(); // by id: those that Python may still ask for

  function initialize({ model }) {
    model.on("msg:custom", (message) => {
      if (message.kind === "want" && files.has(message.id)) sendPiece(model, message);
      if (message.kind === "done") files.delete(message.id);
    });
    model.send({ kind: "hello" });
  }

  async function sendPiece(model, { id, at, length }) {
    try {
      const piece = await files.get(id).slice(at, at + length).arrayBuffer();
      model.send({ kind: "piece", id, at }, undefined, [piece]);
    } catch { // a folder, or a file that was changed or removed meanwhile
      model.send({ kind: "lost", id });
    }
  }

  function offer(model, list) {
    const offered = Array.from(list, (file) => {
      const id = newId();
      files.set(id, file);
      return { id, name: file.name, type: file.type, size: file.size };
    });
    model.send({ kind: "offer", files: offered });
  }

  function render({ model, el }) {
    el.innerHTML = HTML;
    const [area, input, progress] = [".p3v-area", "input", ".p3v-progress"].map((name) => el.querySelector(name));
    const until = new AbortController(); // the view is removed: then nothing may listen any more
    const listen = (target, name, handler) =>
      target.addEventListener(name, handler, { capture: true, signal: until.signal });

    function take(list) {
      if (list.length) showProgress("Waiting for Python…"); // it may be busy, or gone
      offer(model, list);
    }

    function showProgress(text, share) {
      progress.hidden = text === "";
      progress.lastElementChild.textContent = text;
      if (share === undefined) progress.firstElementChild.removeAttribute("value");
      else progress.firstElementChild.value = share;
    }

    // Whether what happens at this node is meant for this zone. A form may have several: then the one that it
    // happens in, else the first. Before a view is in the page it has no form, so this is asked each time.
    function isOurs(node) {
      const form = el.closest(".p3v-form") ?? el;
      if (!(node instanceof Element) || !form.contains(node)) return false;
      return (node.closest(".p3v-zone") ?? form.querySelector(".p3v-zone")) === el;
    }

    listen(el.querySelector(".p3v-choose"), "click", () => input.click());
    listen(input, "change", () => {
      take(input.files);
      input.value = ""; // so that the same file can be chosen again
    });

    // A file may be dropped anywhere in the form: beside it, the browser would leave the page to show the file.
    // What is no file, such as marked text, is only for the zone itself, which says so.
    const isDropOfOurs = (event) =>
      isOurs(event.target) && (event.dataTransfer.types.includes("Files") || el.contains(event.target));
    listen(document, "dragover", (event) => {
      area.classList.toggle("p3v-over", isDropOfOurs(event));
      if (isDropOfOurs(event)) event.preventDefault();
    });
    listen(document, "dragleave", (event) => {
      if (event.relatedTarget === null) area.classList.remove("p3v-over"); // out of the window
    });
    listen(document, "drop", (event) => {
      area.classList.remove("p3v-over");
      if (!isDropOfOurs(event)) return;
      event.preventDefault();
      event.stopPropagation();
      take(event.dataTransfer.files);
    });

    // Some programs put a picture of the text beside the text: in a text field the text is what is wanted.
    const isPasteOfText = (event) =>
      event.target.matches("input, textarea") && event.clipboardData.types.includes("text/plain");
    listen(document, "paste", (event) => {
      if (!isOurs(event.target) || !event.clipboardData.files.length || isPasteOfText(event)) return;
      event.preventDefault();
      event.stopPropagation();
      take(event.clipboardData.files);
    });

    // The window hears of a key before JupyterLab does, which would run the cell.
    listen(window, "keydown", async (event) => {
      const isRun = event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
      if (!isRun || !model.get("runs") || !isOurs(event.target)) return;
      event.preventDefault();
      event.stopPropagation();
      if (event.repeat) return;
      event.target.dispatchEvent(new Event("change", { bubbles: true })); // as if the field had been left
      await allHasArrived(model.widget_manager);
      model.send({ kind: "run" });
    });

    model.on("msg:custom", (message) => {
      if (message.kind === "done" && files.size === 0) showProgress("");
      if (message.kind === "want") {
        const share = message.at / message.size;
        showProgress(`${message.name}: ${Math.floor(100 * share)} %`, share);
      }
    });

    return () => until.abort();
  }

  return { initialize, render };
};
