// SHA-256 (FIPS 180-4), piece by piece: the browser's own wants a whole file in memory,
// and does not exist on pages without TLS.

const k = new Uint32Array(64);
const start = new Uint32Array(8);
(() => { // the first 32 bits of the fractional parts of roots of the first 64 primes
  const part = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
  for (let n = 2, i = 0; i < 64; n++) {
    let prime = true;
    for (let d = 2; d * d <= n; d++) if (n % d === 0) { prime = false; break; }
    if (!prime) continue;
    if (i < 8) start[i] = part(Math.sqrt(n));
    k[i++] = part(Math.cbrt(n));
  }
})();

export class Sha256 {
  constructor() {
    this.h = start.slice();
    this.rest = new Uint8Array(64);
    this.have = 0;
    this.length = 0;
    this.w = new Uint32Array(64);
  }

  block(b, at) {
    const { w, h } = this;
    for (let i = 0; i < 16; i++, at += 4) w[i] = (b[at] << 24) | (b[at + 1] << 16) | (b[at + 2] << 8) | b[at + 3];
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15]; const y = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3))
        + (((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10));
    }
    let [A, B, C, D, E, F, G, H] = h;
    for (let i = 0; i < 64; i++) {
      const one = (H + (((E >>> 6) | (E << 26)) ^ ((E >>> 11) | (E << 21)) ^ ((E >>> 25) | (E << 7))) + ((E & F) ^ (~E & G)) + k[i] + w[i]) | 0;
      const two = ((((A >>> 2) | (A << 30)) ^ ((A >>> 13) | (A << 19)) ^ ((A >>> 22) | (A << 10))) + ((A & B) ^ (A & C) ^ (B & C))) | 0;
      H = G; G = F; F = E; E = (D + one) | 0; D = C; C = B; B = A; A = (one + two) | 0;
    }
    h[0] += A; h[1] += B; h[2] += C; h[3] += D; h[4] += E; h[5] += F; h[6] += G; h[7] += H;
  }

  update(b) {
    this.length += b.length;
    let at = 0;
    if (this.have) {
      at = Math.min(64 - this.have, b.length);
      this.rest.set(b.subarray(0, at), this.have);
      this.have += at;
      if (this.have < 64) return this;
      this.block(this.rest, 0);
    }
    for (; at + 64 <= b.length; at += 64) this.block(b, at);
    this.rest.set(b.subarray(at));
    this.have = b.length - at;
    return this;
  }

  /** The sum in hexadecimal; nothing may be added after it. */
  hex() {
    const bits = this.length * 8;
    const pad = new Uint8Array((this.have < 56 ? 56 : 120) - this.have + 8);
    pad[0] = 0x80;
    const view = new DataView(pad.buffer);
    view.setUint32(pad.length - 8, Math.floor(bits / 2 ** 32));
    view.setUint32(pad.length - 4, bits >>> 0);
    this.update(pad);
    return Array.from(this.h, (x) => x.toString(16).padStart(8, '0')).join('');
  }
}

const piece = 1 << 20;

/** The sum of a file, read in pieces so that the page stays lively. */
export async function sumOf(file) {
  const sum = new Sha256();
  for (let at = 0; at < file.size; at += piece) {
    sum.update(new Uint8Array(await file.slice(at, at + piece).arrayBuffer()));
  }
  return sum.hex();
}
