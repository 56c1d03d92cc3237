// Shared by all widgets: bytes in base64, and painting them.

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const textOf = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));

// Text always enters the page here and never through a template: class names come from files.
function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// One picture of grey levels or RGB triples; canvases stay at picture size and CSS enlarges them, pixel by pixel.
function paint(canvas, pixels, width, height) {
  const colour = pixels.length === 3 * width * height;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  for (let k = 0; k < width * height; k++) {
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = pixels[colour ? 3 * k + c : k];
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}
