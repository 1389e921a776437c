/** A little confetti over the page, for a purchase that has come in. */

const PIECES = 60;
const FALL_MS = 1_800;
const COLORS = ['#2f6fed', '#f5a623', '#2bb673', '#e0457b'];

/** Throws it once; not for people who asked their system for less motion. */
export function celebrate() {
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) return;
  const sky = document.createElement('div');
  sky.className = 'confetti';
  // There is nothing to read in it.
  sky.ariaHidden = 'true';
  document.body.append(sky);
  const falls = Array.from({ length: PIECES }, (_, n) => fall(sky, COLORS[n % COLORS.length]));
  Promise.allSettled(falls).then(() => sky.remove());
}

function fall(sky, color) {
  const piece = document.createElement('i');
  piece.style.background = color;
  piece.style.left = `${100 * Math.random()}%`;
  sky.append(piece);
  const drift = 20 * (Math.random() - 0.5);
  const turn = 720 * Math.random();
  const frames = [
    { transform: 'translate(0, -10vh)', opacity: 1 },
    { transform: `translate(${drift}vw, 105vh) rotate(${turn}deg)`, opacity: 0.6 },
  ];
  const timing = { duration: FALL_MS, delay: 400 * Math.random(), easing: 'ease-in', fill: 'both' };
  return piece.animate(frames, timing).finished;
}
