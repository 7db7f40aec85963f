// What the page holds deflated and in base64, made into numbers again.

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Undoes viewer_page.py's packing: high bytes, low bytes, of the zigzag of the difference along both axes.
function unpackWords(bytes, width, height) {
  const count = width * height;
  const words = new Uint16Array(count);
  for (let row = 0, k = 0; row < height; row++) {
    for (let column = 0, sum = 0; column < width; column++, k++) {
      const zigzag = (bytes[k] << 8) | bytes[count + k];
      sum += (zigzag >>> 1) ^ -(zigzag & 1);
      words[k] = sum + (row ? words[k - width] : 0);
    }
  }
  return words;
}
