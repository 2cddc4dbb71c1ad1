// A button that asks Python for a text and puts it on the clipboard.

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // refused, or not there at all: it is only for https and for this machine
    return copyByCommand(text);
  }
}

function copyByCommand(text) {
  const [field, focused] = [document.createElement("textarea"), document.activeElement];
  field.value = text;
  field.style.cssText = "position: fixed; opacity: 0";
  document.body.append(field);
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return isDone;
}

function render({ model, el }) {
  const viewId = Math.random().toString(36).slice(2); // of several views, the one that asked gets the text
  el.innerHTML = '<button type="button" class="jupyter-widgets jupyter-button widget-button" aria-live="polite"></button>' +
    '<span class="p3v-copy-note" role="status"></span>';
  const [button, note] = el.children;
  let timer;

  function rest() {
    button.textContent = model.get("label");
  }

  button.addEventListener("click", () => {
    note.textContent = "";
    model.send({ kind: "copy", id: viewId });
  });

  model.on("msg:custom", async ({ id, text, trouble }) => {
    if (id !== viewId) return;
    if (trouble) {
      note.textContent = trouble;
    } else if (await copy(text)) {
      button.textContent = "Copied";
      clearTimeout(timer);
      timer = setTimeout(rest, 2000);
    } else {
      note.textContent = "Select and copy the text below";
    }
  });

  rest();
  return () => clearTimeout(timer);
}

export default { render };
