// A small picture. Its bytes come in a message when the page asks for them, never as a part of the widget's state.

export default () => {
  let picture; // once it has come, for every view

  function initialize({ model }) {
    model.on("msg:custom", (message, buffers) => {
      picture = { ...message, blob: new Blob([buffers[0]], { type: "image/jpeg" }) };
    });
    model.send({ kind: "ready" });
  }

  function render({ model, el }) {
    const img = document.createElement("img");
    img.onload = () => URL.revokeObjectURL(img.src);
    const show = () => {
      if (!picture) return;
      img.alt = img.title = picture.alt;
      img.style.height = `${picture.height}px`;
      img.style.maxWidth = `${4 * picture.height}px`;
      img.src = URL.createObjectURL(picture.blob);
    };
    model.on("msg:custom", show); // after the one above
    show();
    el.append(img);
  }

  return { initialize, render };
};
