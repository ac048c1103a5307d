// Writes csmsd/fixtures/segments.jsonl: texts, and how many short messages two libraries that are not ours make of each
// (Twilio's own calculator, and split-sms). What they disagree about goes to the standard error and is left out.
//
//   node tests/contracts/segments.cjs FOLDER_WITH_NODE_MODULES >csmsd/fixtures/segments.jsonl

const path = require("node:path");

const from = (name) => require(path.resolve(process.argv[2], "node_modules", name));
const { SegmentedMessage } = from("sms-segments-calculator");
const { split } = from("split-sms");

// A generator of our own, so that the file is the same each time.
let state = 2026;
const below = (bound) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 4294967296) * bound);
};

const basic = [..."@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"];
const extension = [..."^{}\\[~]|€"];
const outside = [..."абвгдежзийклмнопрст中文字çłńő✓"];
const pairs = [..."😀🔥🚀"];

const text = (length, ...alphabets) => {
  let made = "";
  for (let n = 0; n < length; n++) {
    const alphabet = alphabets[below(alphabets.length)];
    made += alphabet[below(alphabet.length)];
  }
  return made;
};

const texts = [""];
for (const near of [1, 70, 134, 160, 201, 306, 459]) {
  for (const length of [near - 1, near, near + 1, near + 2]) {
    texts.push(text(length, basic), text(length, outside), text(length, basic, basic, basic, extension));
    texts.push(text(length, outside, pairs), text(Math.ceil(length / 2), extension), text(Math.ceil(length / 2), pairs));
  }
}
for (let n = 0; n < 300; n++) {
  const length = 1 + below(500);
  const kinds = [[basic], [basic, extension], [basic, basic, outside], [outside, pairs, basic], [extension, basic, basic, pairs]];
  texts.push(text(length, ...kinds[below(kinds.length)]));
}
for (const one of texts.filter((one) => one)) {
  const twilio = new SegmentedMessage(one, "auto").segmentsCount;
  const other = split(one).parts.length;
  if (twilio === other) console.log(JSON.stringify([one, twilio]));
  else console.error(`${JSON.stringify(one)}: ${twilio} or ${other}`);
}
