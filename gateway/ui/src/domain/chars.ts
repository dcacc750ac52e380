// Characters of a soft keyboard to keys of a US board: phones tell which text came, not which key. Pure.

export interface Stroke {
  code: string;
  shift: boolean;
}

const PLAIN: Record<string, string> = {
  " ": "Space", "\n": "Enter", "\t": "Tab", "`": "Backquote", "-": "Minus", "=": "Equal", "[": "BracketLeft", "]": "BracketRight",
  "\\": "Backslash", ";": "Semicolon", "'": "Quote", ",": "Comma", ".": "Period", "/": "Slash",
};
const SHIFTED: Record<string, string> = {
  "~": "Backquote", _: "Minus", "+": "Equal", "{": "BracketLeft", "}": "BracketRight", "|": "Backslash", ":": "Semicolon",
  '"': "Quote", "<": "Comma", ">": "Period", "?": "Slash", "!": "Digit1", "@": "Digit2", "#": "Digit3", $: "Digit4", "%": "Digit5",
  "^": "Digit6", "&": "Digit7", "*": "Digit8", "(": "Digit9", ")": "Digit0",
};

/** The key that makes this character; absent for what a US board does not have. */
export function strokeOf(character: string): Stroke | undefined {
  if (/^[a-z]$/.test(character)) return { code: `Key${character.toUpperCase()}`, shift: false };
  if (/^[A-Z]$/.test(character)) return { code: `Key${character}`, shift: true };
  if (/^[0-9]$/.test(character)) return { code: `Digit${character}`, shift: false };
  const plain = PLAIN[character];
  if (plain !== undefined) return { code: plain, shift: false };
  const shifted = SHIFTED[character];
  return shifted === undefined ? undefined : { code: shifted, shift: true };
}
