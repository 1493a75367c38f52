/* Checks Byline's proofs in a browser, without a server: what `byline verify` checks, in its words.

Every file is taken for hostile; nothing in it is believed but what a signature or a hash leads to.
The formats are those of docs/proofs.md. No dependency; SHA-256 and Ed25519 are the browser's own
(WebCrypto). Amounts are BigInt. Read from the top: JSON, hashes and trees, signatures, entries,
files, what several files show together. */
"use strict";

const byline = (() => {
  class Refused extends Error {}
  const require = (holds, sentence) => {
    if (!holds) throw new Refused(sentence);
  };

  // JSON ---------------------------------------------------------------------------------------

  // The browser's own parser takes a field twice and loses large numbers: this one does neither.
  // A whole number is a BigInt, any other a Number.
  function parseJson(source) {
    let at = 0;
    const bad = () => {
      throw new Refused("what should be JSON can't be read");
    };
    const space = () => {
      while (at < source.length && " \t\n\r".includes(source[at])) at++;
    };
    const string = () => {
      const start = at++;
      while (source[at] !== '"') {
        if (at >= source.length) bad();
        at += source[at] === "\\" ? 2 : 1;
      }
      try {
        return JSON.parse(source.slice(start, ++at));
      } catch {
        return bad();
      }
    };
    const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
    const number = () => {
      NUMBER.lastIndex = at;
      const found = NUMBER.exec(source);
      if (!found || found[0].length > 4000) bad();
      at += found[0].length;
      return found[1] || found[2] ? Number(found[0]) : BigInt(found[0]);
    };
    const WORDS = { true: true, false: false, null: null };
    const value = (depth) => {
      if (depth > 200) bad();
      space();
      const first = source[at];
      let found;
      if (first === "{" || first === "[") {
        found = first === "{" ? new Map() : [];
        at++;
        space();
        const end = first === "{" ? "}" : "]";
        if (source[at] === end) at++;
        else
          for (;;) {
            space();
            let name;
            if (first === "{") {
              if (source[at] !== '"') bad();
              name = string();
              require(!found.has(name), "a JSON text has a field twice");
              space();
              if (source[at++] !== ":") bad();
            }
            const part = value(depth + 1);
            if (first === "{") found.set(name, part);
            else found.push(part);
            space();
            if (source[at] === end) {
              at++;
              break;
            }
            if (source[at++] !== ",") bad();
          }
      } else if (first === '"') found = string();
      else {
        const word = Object.keys(WORDS).find((each) => source.startsWith(each, at));
        if (word) {
          at += word.length;
          found = WORDS[word];
        } else found = number();
      }
      return found;
    };
    const found = value(0);
    space();
    if (at !== source.length) bad();
    return found;
  }

  // The fields that a shape names, each of its type; further ones are ignored.
  function shaped(value, shape) {
    require(value instanceof Map, "where a JSON object should be there is none");
    const found = {};
    for (const [name, convert] of Object.entries(shape)) {
      require(value.has(name), `the field '${name}' is missing`);
      found[name] = convert(value.get(name));
    }
    return found;
  }

  const BOUND = 1n << 63n;
  const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
  const any = (value) => value;
  const text = (value) => {
    require(typeof value === "string" && !LONE.test(value), "a field is no text");
    return value;
  };
  const word = (value) => {
    require(typeof value === "string" && /^[A-Za-z0-9:@._/-]{1,128}$/.test(value), "a name has other characters in it than names have");
    return value;
  };
  const integer = (value) => {
    const holds = typeof value === "bigint" && value < BOUND && value > -BOUND;
    require(holds, "a field is no whole number within bounds");
    return value;
  };
  const number = (value) => {
    require(integer(value) >= 0n, "a field is no whole number within bounds");
    return value;
  };
  const amount = (value) => {
    const holds = typeof value === "string" && /^(?:0|-?[1-9][0-9]{0,18})$/.test(value);
    require(holds && !value.endsWith("\n"), "an amount is no decimal string of whole nano-USD");
    return integer(BigInt(value));
  };
  const hex32 = (value) => {
    const holds = typeof value === "string" && value.length === 64 && /^[0-9a-f]*$/.test(value);
    require(holds, "a hash is not 64 digits of lower-case hex");
    return value; // kept as text, so that hashes compare by ===
  };
  const version = (value) => require(value === 1n, "this verifier is not for its version");
  const nullOr = (convert) => (value) => (value === null ? null : convert(value));
  const listOf = (convert) => (value) => {
    require(Array.isArray(value), "a field is no list");
    return value.map(convert);
  };
  const objectOf = (shape) => (value) => shaped(value, shape);

  // Bytes, hashes and trees: a hash is kept as lower-case hex ----------------------------------

  const encoder = new TextEncoder();
  const bytesOf = (source) => encoder.encode(source);
  const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
  const hexOf = (bytes) => Array.from(bytes, (byte) => HEX[byte]).join("");
  const fromHex = (hex) => Uint8Array.from(hex.match(/../g) || [], (pair) => parseInt(pair, 16));

  function base64(value, length) {
    let raw = "";
    try {
      if (typeof value === "string" && /^[A-Za-z0-9+/]*={0,2}$/.test(value)) raw = atob(value);
    } catch {
      raw = "";
    }
    const holds = btoa(raw) === value && (length === undefined || raw.length === length);
    require(holds, "base64 can't be read, or is of the wrong length");
    return Uint8Array.from(raw, (character) => character.charCodeAt(0));
  }
  const hash64 = (value) => hexOf(base64(value, 32));

  function joined(...parts) {
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }
  async function sha256(...parts) {
    return hexOf(new Uint8Array(await crypto.subtle.digest("SHA-256", joined(...parts))));
  }
  const marked = (byte, ...parts) => sha256(Uint8Array.of(byte), ...parts);
  // Paths under one tree head share most of their nodes: each is hashed once.
  const nodes = new Map();
  async function nodeHash(left, right) {
    const known = nodes.get(left + right);
    if (known) return known;
    if (nodes.size > 500000) nodes.clear();
    const found = await marked(1, fromHex(left), fromHex(right));
    nodes.set(left + right, found);
    return found;
  }
  const split = (size) => {
    let left = 1n;
    while (left * 2n < size) left *= 2n;
    return left;
  };

  // The root to which a path leads; its last node is the root's child.
  async function fold(leaf, index, size, path, join) {
    const fits = index >= 0n && index < size && path.length > 0 === size > 1n;
    require(fits, "a path does not fit its tree");
    if (size === 1n) return leaf;
    const [left, rest, last] = [split(size), path.slice(0, -1), path[path.length - 1]];
    if (index < left) return join(await fold(leaf, index, left, rest, join), last);
    return join(last, await fold(leaf, index - left, size - left, rest, join));
  }
  async function rootOver(level, join) {
    while (level.length > 1) {
      const above = [];
      for (let i = 0; i + 1 < level.length; i += 2) above.push(await join(level[i], level[i + 1]));
      if (level.length % 2) above.push(level[level.length - 1]);
      level = above;
    }
    return level[0];
  }
  async function olderAndNewer(old, size, path, oldRoot) {
    const sentence = "a consistency proof does not fit its trees";
    if (old === size) {
      require(path.length === (oldRoot === null ? 1 : 0), sentence);
      return oldRoot === null ? [path[0], path[0]] : [oldRoot, oldRoot];
    }
    require(old > 0n && old < size && path.length, sentence);
    const [left, rest, last] = [split(size), path.slice(0, -1), path[path.length - 1]];
    if (old <= left) {
      const [older, newer] = await olderAndNewer(old, left, rest, oldRoot);
      return [older, await nodeHash(newer, last)];
    }
    const [older, newer] = await olderAndNewer(old - left, size - left, rest, null);
    return [await nodeHash(last, older), await nodeHash(last, newer)];
  }

  // Signatures: keys, notes, tree heads, policies ----------------------------------------------

  async function parseKey(vkey, kind = 1) {
    const at = text(vkey).indexOf("+");
    const parts = [vkey.slice(0, at), ...vkey.slice(at + 1).split(/\+(.*)/s)];
    require(at > 0 && parts.length >= 3 && !/\s/.test(parts[0]), "a vkey can't be read");
    const raw = base64(parts[2], 33);
    const id = (await sha256(bytesOf(`${parts[0]}\n`), raw)).slice(0, 8);
    require(raw[0] === kind && id === parts[1], `the vkey of ${parts[0]} is wrong`);
    return { name: parts[0], kind, id, public: raw.slice(1), hex: hexOf(raw) };
  }
  async function requireSigned(key, message, signature) {
    let holds = false;
    if (key.kind === 4) {
      let seconds = 0n;
      for (const byte of signature.slice(0, 8)) seconds = seconds * 256n + BigInt(byte);
      message = joined(bytesOf(`cosignature/v1\ntime ${seconds}\n`), message);
      signature = signature.slice(8);
    }
    try {
      const imported = await crypto.subtle.importKey("raw", key.public, "Ed25519", false, ["verify"]);
      holds = await crypto.subtle.verify("Ed25519", imported, signature, message);
    } catch (problem) {
      if (problem.name === "NotSupportedError")
        throw new Refused("this browser can't check Ed25519 signatures: take a newer one");
    }
    require(holds, `the signature of ${key.name} does not verify`);
  }
  async function signers(note, keys) {
    const found = [];
    for (const key of keys) {
      const mine = note.lines.filter((line) => line.name === key.name && line.id === key.id);
      for (const line of mine) await requireSigned(key, bytesOf(note.text), line.signature);
      if (mine.length) found.push(key);
    }
    return found;
  }
  function parseNote(note) {
    const gap = text(note).lastIndexOf("\n\n");
    const whole = gap >= 0 && note.endsWith("\n") && !/[\x00-\x09\x0b-\x1f]/.test(note);
    const rows = note.slice(gap + 2, -1).split("\n");
    require(whole && gap + 2 < note.length && rows.length <= 64, "it is no signed note");
    const lines = rows.map((row) => {
      const found = /^— ([^\s+]+) (\S+)$/.exec(row);
      require(found, "a signature line can't be read");
      const raw = base64(found[2]);
      return { name: found[1], id: hexOf(raw.slice(0, 4)), signature: raw.slice(4) };
    });
    return { text: note.slice(0, gap + 1), lines };
  }
  const SIZE = /^(?:0|[1-9][0-9]{0,18})$/;
  function parseHead(checkpoint) {
    const note = parseNote(checkpoint);
    const lines = note.text.split("\n");
    const isOne = lines.length === 4 && lines[0] && SIZE.test(lines[1]);
    require(isOne, "it is no tree head: origin, size, root");
    return { origin: lines[0], size: number(BigInt(lines[1])), root: hash64(lines[2]), note };
  }
  async function parsePolicy(source) {
    const policy = { logs: [], witnesses: new Map(), groups: new Map(), quorum: null };
    let lines = source.split("\n").map((line) => line.split(/\s+/).filter(Boolean));
    lines = lines.filter((words) => words.length && !words[0].startsWith("#"));
    if (lines.length && lines.every((words) => words.length === 1))
      lines = [...lines.map(([vkey]) => ["log", vkey]), ["quorum", "none"]];
    const taken = new Set();
    for (const words of lines) await policyLine(policy, words, taken);
    const keys = [...policy.logs, ...policy.witnesses.values()].map((key) => hexOf(key.public));
    require(policy.logs.length && policy.quorum, "a policy needs a log and a quorum line");
    require(new Set(keys).size === keys.length, "the policy has a key twice");
    return policy;
  }
  async function policyLine(policy, words, taken) {
    const known = new Set([...policy.witnesses.keys(), ...policy.groups.keys()]);
    const [kind, name, ...rest] = words;
    const isNew = name !== undefined && name !== "none" && !known.has(name);
    if (kind === "log" && name && rest.length < 2) policy.logs.push(await parseKey(name));
    else if (kind === "witness" && isNew && rest.length > 0 && rest.length < 3)
      policy.witnesses.set(name, await parseKey(rest[0], 4));
    else if (kind === "group" && isNew && rest.length > 1) {
      const [needed, ...members] = rest;
      const counts = { all: members.length, any: 1 };
      const count = /^[0-9]{1,3}$/.test(needed) ? Number(needed) : counts[needed] || 0;
      const isGood = members.every((member) => known.has(member) && !taken.has(member));
      const isOnce = new Set(members).size === members.length;
      require(isGood && isOnce && count > 0 && count <= members.length, `the group '${name}' is wrong`);
      members.forEach((member) => taken.add(member));
      policy.groups.set(name, { count, members });
    } else if (kind === "quorum" && policy.quorum === null && !rest.length && (name === "none" || known.has(name)))
      policy.quorum = name;
    else throw new Refused(`the policy's line '${words.join(" ")}' can't be read`);
  }
  async function requireQuorum(policy, head) {
    const signed = await signers(head.note, policy.witnesses.values());
    const reached = new Set(["none"]);
    for (const [name, key] of policy.witnesses) if (signed.includes(key)) reached.add(name);
    for (const [name, { count, members }] of policy.groups)
      if (members.filter((member) => reached.has(member)).length >= count) reached.add(name);
    const sentence = `the witnesses' quorum '${policy.quorum}' did not cosign the tree head`;
    require(reached.has(policy.quorum), sentence);
    return signed.map((key) => key.name);
  }

  // Entries and their legs ---------------------------------------------------------------------

  const EMPTY_ROOT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  const NO_LEG = "0".repeat(64);
  const PPB = 10n ** 9n;
  // By an entry's kind: whose accounts give, and whose get.
  const CHARGED = "base: host owner: platform open:";
  const PAYEES = "base: contrib: host owner: platform";
  const ANY = `app: ${PAYEES} unattributed: funding payout refund`;
  const PARTIES = {
    deposit: ["funding", "app:"], hold: ["app:", "hold:"],
    capture: ["hold:", `app: ${CHARGED}`], capture_late: ["app:", CHARGED],
    void: ["hold:", "app:"], expire: ["hold:", "app:"],
    settle: ["open:", "contrib: unattributed:"], adjust: [ANY, ANY],
    refund: [`${PAYEES} unattributed: refund`, "app:"], payout: [PAYEES, "payout"],
    release: ["unattributed:", "app: base: contrib: owner:"],
  };
  const SUMS = { debits: amount, credits: amount, paid: amount };
  const LEAVES = {
    entry: {
      seq: number, key: word, kind: text, inference: nullOr(text), adapter_version: nullOr(text),
      time_ms: number, policy: text, charge: amount, manifest: nullOr(hex32),
      manifest_index: nullOr(number), legs: objectOf({ count: number, root: hex32, ...SUMS }),
    },
    manifest: { key: word, manifest: hex32 },
    statement: { month: text, commitment: hex32 },
    key: { origin: text, old: text, new: text, signature: text },
  };
  const LEG = { account: word, nano: amount, seq: number, n: number, prev: hex32, ppb: nullOr(number),
    salt: hex32 };
  const OPENING = { account: word, month: text, salt: hex32, first_n: number, last_n: number,
    before: hex32, head: hex32, opening: amount, closing: amount, sha256: text };
  const ATTRIBUTION = { inference: text, adapter_version: text, pool_nano: integer, unattributed_ppb: number,
    shares: listOf(objectOf({ contributor: text, share_ppb: number })) };
  const DECISION = { account: word, nano: amount, statement: text, first_seq: number,
    last_seq: number, opening_nano: amount, lines_nano: amount, reference: text };
  const TABLE = { account: word, month: text, opening_nano: integer, closing_nano: integer,
    lines: listOf(objectOf({ seq: number, key: text, kind: text, nano: integer })) };
  const RECEIPT = { v: version, inference: word, application: text, model: text, served_by: text,
    adapter_version: nullOr(text), policy: text, charge: amount, state: word, time_ms: number,
    capture: objectOf({ key: word, manifest_sha256: hex32 }),
    settles: listOf(objectOf({ key: word, manifest_sha256: nullOr(hex32) })) };
  const isOf = (account, ...kinds) => kinds.some((kind) => account.startsWith(kind));
  const grouped = (value) => value.toString().replace(/\B(?=(\d{3})+$)/g, ",");

  function hashedSums(node) {
    const view = new DataView(new ArrayBuffer(24));
    [node.debits, node.credits, node.paid].forEach((sum, i) => view.setBigUint64(8 * i, sum));
    return new Uint8Array(view.buffer);
  }
  async function sumNode(left, right) {
    const found = {};
    for (const name of ["debits", "credits", "paid"]) {
      found[name] = left[name] + right[name];
      const holds = left[name] >= 0n && right[name] >= 0n && found[name] < BOUND;
      require(holds, "a sum is out of bounds");
    }
    const parts = [fromHex(left.hash), hashedSums(left), fromHex(right.hash), hashedSums(right)];
    return { ...found, hash: await marked(3, ...parts) };
  }
  function pathNode(value) {
    require(Array.isArray(value) && value.length === 4, "a leg's path can't be read");
    const [debits, credits, paid] = value.slice(1).map(amount);
    return { hash: hex32(value[0]), debits, credits, paid };
  }
  function parseLeaf(data) {
    require(bytesOf(data).length <= 65535, "a leaf is too long");
    const value = parseJson(data);
    const { type } = shaped(value, { v: version, type: text });
    require(Object.hasOwn(LEAVES, type), `a leaf is of the unknown type '${type}'`);
    return { type, ...shaped(value, LEAVES[type]) };
  }
  function checkEntry(entry, index) {
    const { legs, kind } = entry;
    const must = (holds, sentence) => require(holds, `entry ${entry.seq}: ${sentence}`);
    must(Object.hasOwn(PARTIES, kind), `the kind '${kind}' is unknown`);
    const operation = kind.replace("_late", "");
    must(entry.key.split("/")[1] === operation, `its event is no ${operation}`);
    must(entry.seq > 0n, "entries are numbered from 1");
    must(legs.debits === legs.credits, "what is credited is not what is debited");
    must(legs.paid >= 0n && legs.paid <= legs.credits, "more is paid than credited");
    const captures = operation === "capture";
    must(!captures || legs.paid === entry.charge, "what it pays is not the charge");
    must(captures || entry.charge === 0n, "it charges, and is no capture");
    if (["deposit", "hold", "void", "expire"].includes(kind)) must(legs.paid === 0n, "it pays somebody");
    const settles = kind === "settle";
    must((entry.manifest_index !== null) === settles, "manifest_index is wrong");
    const isBefore = !settles || (entry.manifest !== null && entry.manifest_index < index);
    must(isBefore, "its manifest was not logged before it was paid on");
    must(!settles || legs.paid === legs.debits, "not the whole pool is paid");
  }
  async function parseLeg(source, entry) {
    const leg = shaped(parseJson(source), LEG);
    const must = (holds, said) => require(holds, `entry ${entry.seq}, the leg of '${leg.account}': ${said}`);
    must(leg.seq === entry.seq, "it is of another entry");
    must(leg.n > 0n === !isOf(leg.account, "hold:", "open:"), `its number can't be ${leg.n}`);
    must((leg.prev === NO_LEG) === leg.n <= 1n, "it names a wrong leg before it");
    const credits = leg.nano > 0n ? leg.nano : 0n;
    const paid = isOf(leg.account, "app:", "hold:") ? 0n : credits;
    leg.node = { debits: leg.nano < 0n ? -leg.nano : 0n, credits, paid };
    leg.node.hash = await marked(2, hashedSums(leg.node), bytesOf(source));
    must(mayTouch(leg, entry), `a ${entry.kind} does not touch this account`);
    const share = leg.ppb ?? 0n; // where none is stated it is 0, and no credit is so little
    const off = leg.nano * PPB - entry.legs.debits * share;
    const isShare = share <= PPB && off < PPB && off > -PPB;
    const holds = entry.kind === "settle" && credits ? isShare : leg.ppb === null;
    must(holds, `${leg.nano} of ${entry.legs.debits} is not the share that it states`);
    return Object.assign(leg, { entry, decision: null });
  }
  // This kind of entry gives to such accounts, or takes; of holds and pools, its inference's.
  function mayTouch({ account, nano }, entry) {
    const kind = account.slice(0, account.indexOf(":") + 1) || account;
    const own = `${kind}${entry.key.split("/", 1)[0]}/`;
    const isOwn = !["hold:", "open:"].includes(kind) || `${account}/`.startsWith(own);
    return isOwn && PARTIES[entry.kind][nano < 0n ? 0 : 1].split(" ").includes(kind);
  }
  const sameNode = (a, b) =>
    ["hash", "debits", "credits", "paid"].every((name) => a[name] === b[name]);
  async function openedLegs(opening, entry) {
    let parts, root;
    if (shaped(opening, { object: text }).object === "line") {
      const shape = { text, index: number, path: listOf(pathNode) };
      const given = shaped(opening, { leg: objectOf(shape) }).leg;
      parts = [await parseLeg(given.text, entry)];
      root = await fold(parts[0].node, given.index, entry.legs.count, given.path, sumNode);
    } else {
      parts = [];
      for (const part of shaped(opening, { legs: listOf(any) }).legs)
        if (part instanceof Map && part.has("text")) parts.push(await parseLeg(text(part.get("text")), entry));
        else parts.push({ node: shaped(part, { hash: hex32, ...SUMS }) });
      require(BigInt(parts.length) === entry.legs.count, `entry ${entry.seq} has other legs`);
      const none = { hash: EMPTY_ROOT, debits: 0n, credits: 0n, paid: 0n };
      root = parts.length ? await rootOver(parts.map((part) => part.node), sumNode) : none;
    }
    const stated = { ...entry.legs, hash: entry.legs.root };
    require(sameNode(root, stated), `entry ${entry.seq}: its leaf says something else of its legs`);
    const legs = parts.filter((part) => part.n !== undefined);
    const isOnce = new Set(legs.map((leg) => leg.account)).size === legs.length;
    require(isOnce, `entry ${entry.seq} has two legs of one account`);
    const shared = legs.reduce((sum, leg) => sum + (leg.ppb || 0n), 0n);
    require(shared <= PPB, `entry ${entry.seq} shares out more than all there is`);
    return legs;
  }
  async function checkManifest(opening, entry) {
    if (!opening.has("manifest")) return null;
    const value = opening.get("manifest");
    const shown = shaped(value, { sha256: hex32, salt: hex32 });
    const commitment = await marked(4, fromHex(shown.salt), fromHex(shown.sha256));
    require(commitment === entry.manifest, `entry ${entry.seq} names another manifest`);
    entry.said.push(`its manifest is the one with the SHA-256 ${shown.sha256}`);
    if (value.has("text")) {
      const said = text(value.get("text"));
      require((await sha256(bytesOf(said))) === shown.sha256, "a manifest's text was changed");
      const shared = entry.opened.filter((leg) => entry.kind === "settle" && leg.nano > 0n);
      const shares = entry.kind === "settle" ? sharesIn(said, entry) : new Map();
      for (const leg of shared)
        require(shares.get(leg.account) === leg.ppb, `the manifest gives '${leg.account}' another share`);
      if (entry.kind === "payout")
        for (const leg of entry.opened) checkDecision(leg, shaped(parseJson(said), DECISION));
      if (shared.length || entry.kind === "payout")
        entry.said.push("what the manifest decides is what was posted");
    }
    return shown.sha256;
  }
  function sharesIn(manifest, { key, adapter_version, legs }) {
    const found = shaped(parseJson(manifest), ATTRIBUTION);
    const isIts = found.inference === key.split("/", 1)[0] && found.adapter_version === adapter_version &&
      found.pool_nano === legs.debits;
    require(isIts, "the manifest is of another inference, adapter version or pool");
    const shares = new Map(found.shares.map((each) => [`contrib:${each.contributor}`, each.share_ppb]));
    require(shares.size === found.shares.length, "the manifest names a contributor twice");
    shares.set(`unattributed:${found.adapter_version}`, found.unattributed_ppb);
    const all = [...shares.values()].reduce((sum, ppb) => sum + ppb, 0n);
    require(all === PPB, "the manifest's shares are not one whole");
    return shares;
  }
  // What a statement's leaf commits to.
  async function openedStatement(opening, leaf) {
    const source = shaped(opening, { opening: text }).opening;
    const found = shaped(parseJson(source), OPENING);
    const isIts = (await marked(5, bytesOf(source))) === leaf.commitment && found.month === leaf.month;
    require(isIts, "it is not the statement that the log has");
    const isMonth = /^[12][0-9]{3}-(0[1-9]|1[0-2])$/.test(found.month);
    require(isMonth, `a statement is for '${found.month}', which is no month`);
    return found;
  }
  // The newest line of a statement is before its month's end, in UTC; it may be older.
  function requireInMonth({ account, month }, newestMs) {
    const end = Date.UTC(Number(month.slice(0, 4)), Number(month.slice(5)), 1);
    const what = `the statement of '${account}' for ${month}`;
    require(newestMs < BigInt(end), `${what}: a line of it is later than that month`);
  }
  const newestOf = (times) => times.reduce((newest, time) => (time > newest ? time : newest), 0n);
  function checkDecision(leg, decision) {
    const must = (holds, said) => require(holds, `the payout in entry ${leg.entry.seq}: ${said}`);
    if (leg.account === "payout") {
      must(leg.nano === decision.nano, "the decision names another amount");
      return;
    }
    const isIts = leg.account === decision.account && -leg.nano === decision.nano;
    must(isIts, "the decision names another account or amount");
    const owner = decision.statement.slice(0, Math.max(decision.statement.lastIndexOf("/"), 0));
    must(owner === leg.account, "it cites somebody else's statement");
    const { first_seq: first, last_seq: last } = decision;
    must(first >= 1n && first <= last + 1n && last < leg.entry.seq, "the lines that it cites can't be");
    must(decision.nano % 10_000_000n === 0n, "it is of no whole cents");
    must(decision.opening_nano + decision.lines_nano >= decision.nano, "more is paid than is owed");
    leg.decision = decision;
  }
  function manifestBefore(entry, leaves) {
    if (entry.manifest_index === null) return [];
    const leaf = leaves.get(entry.manifest_index);
    if (!leaf) return [`(not here: the leaf of its manifest, ${grouped(entry.manifest_index)})`];
    const isIts = leaf.type === "manifest" && leaf.manifest === entry.manifest && leaf.key === entry.key;
    require(isIts, `leaf ${entry.manifest_index} is not the manifest of entry ${entry.seq}`);
    return [`its manifest is leaf ${grouped(entry.manifest_index)}: logged before it was paid on`];
  }
  function requireChain(legs) {
    for (let i = 1; i < legs.length; i++) {
      const [before, leg] = [legs[i - 1], legs[i]];
      const follows = leg.n !== before.n + 1n || leg.prev === before.node.hash;
      const inOrder = before.entry.seq < leg.entry.seq;
      require(follows && inOrder, `line ${leg.n} of '${leg.account}' does not follow ${before.n}`);
    }
  }
  function sentencesOf(entry, index) {
    const { legs, seq, kind, key } = entry;
    const closed = legs.count - BigInt(entry.opened.length);
    const charged = entry.charge ? `; the charge is ${grouped(entry.charge)}` : "";
    return [
      `leaf ${grouped(index)} is in the log: entry ${grouped(seq)} (${kind}, '${key}')`,
      `it debits ${grouped(legs.debits)} nano-USD, credits as much, and pays ${grouped(legs.paid)} of it${charged}`,
      ...entry.opened.map((leg) => {
        const share = leg.ppb === null ? "" : `, ${grouped(leg.ppb)} parts per billion of the pool`;
        const sign = leg.nano < 0n ? "" : "+";
        return `${sign}${grouped(leg.nano)} nano-USD for '${leg.account}'${leg.n ? `, its line ${grouped(leg.n)}` : ""}${share}`;
      }),
      ...(closed ? [`(closed: ${grouped(closed)} more of its legs, whose sums are as the leaf states)`] : []),
    ];
  }
  const WITH = listOf(objectOf({ index: number, leaf: text, path: listOf(hash64) }));
  const further = (opening) =>
    opening instanceof Map && opening.has("with") ? WITH(opening.get("with")) : [];

  return { Refused, require, parseJson, shaped, any, text, integer, number, hex32, version, listOf,
    bytesOf, hexOf, base64, hash64, sha256, marked, nodeHash, fold, rootOver, olderAndNewer, parseKey,
    requireSigned, signers, parseNote, parseHead, parsePolicy, requireQuorum, SIZE, EMPTY_ROOT, NO_LEG,
    PPB, TABLE, RECEIPT, isOf, parseLeaf, checkEntry, openedLegs, openedStatement, checkManifest,
    sharesIn, manifestBefore, requireChain, requireInMonth, newestOf, sentencesOf, further, grouped };
})();

// Files, one by one and then together -----------------------------------------------------------

byline.Files = class {
  constructor(policy) {
    Object.assign(this, { policy, said: [], receipts: [], tables: [], bare: [], linked: [] });
    this.heads = new Map(); // by origin and size
    this.leaves = new Map(); // by origin and index: hash and seq
    this.entries = new Map(); // by origin and event key
    this.chains = new Map(); // by origin and account, by n
    this.statements = new Map(); // by origin, account and month
  }

  say(sentence, mark = "ok") {
    this.said.push({ mark: sentence.startsWith("(") ? "" : mark, sentence: printable(sentence) });
  }
  get failed() {
    return this.said.filter((each) => each.mark === "FAILED").map((each) => each.sentence);
  }
  async attempt(name, check) {
    try {
      return await check();
    } catch (problem) {
      const known = problem instanceof byline.Refused;
      this.say(`${name}: ${known ? problem.message : "it can't be read"}`, "FAILED");
      return null;
    }
  }

  async read(name, source) {
    this.say(`${name}:`, "");
    const end = source.indexOf("\n");
    const first = end < 0 ? source : source.slice(0, end + 1);
    const value = first.startsWith("{") ? byline.parseJson(first) : new Map();
    if (value.get("object") === "proofs") await this.set(value, source.slice(first.length));
    else if (first === "c2sp.org/tlog-proof@v1\n") await this.proof(source);
    else if (first === "byline-receipt/v1\n") await this.receipt(source);
    else if (value.get("object") === "statement") this.tables.push([name, source]);
    else {
      const isTable = first.startsWith("row,seq,time");
      byline.require(!isTable, "a statement's CSV is not checked: check its JSON");
      this.bare.push([name, source]);
    }
  }

  // The tree head in a file, whatever else is in it.
  async older(source) {
    if (source.startsWith("{")) {
      const value = byline.parseJson(source.split("\n", 1)[0]);
      const { checkpoint } = byline.shaped(value, { checkpoint: byline.text });
      return (await this.head(checkpoint, byline.further(value))).head;
    }
    if (source.startsWith("c2sp.org/tlog-proof@v1\n")) return this.proof(source);
    const isHistory = source.startsWith("old ");
    return (await this.head(isHistory ? afterGap(source) : source)).head;
  }

  async olderHead(source) {
    if (source === null) return null;
    return this.attempt("the older tree head", () => this.older(source));
  }

  // A tree head that the policy trusts, and leaves of its tree: key leaves hand trust on.
  async head(checkpoint, further = []) {
    const head = byline.parseHead(checkpoint);
    byline.require(!head.origin.endsWith("/receipts"), "a key for receipts signs no log");
    const known = this.heads.get(JSON.stringify([head.origin, `${head.size}`])) || head;
    const keys = this.policy.logs.filter((key) => key.name === head.origin);
    if (known.root === head.root)
      for (const key of known.trusted || []) if (!keys.some((k) => k.hex === key.hex)) keys.push(key);
    const leaves = new Map();
    for (const each of [...further].sort((a, b) => (a.index < b.index ? -1 : 1))) {
      const leaf = await this.included(head, each);
      leaves.set(each.index, leaf);
      if (leaf.type === "key") await this.rotate(head, leaf, keys);
    }
    await this.trust(head, keys);
    return { head, leaves };
  }
  // One of the keys and the quorum must have signed a head that contradicts no other.
  async trust(head, keys) {
    const { require } = byline;
    const at = JSON.stringify([head.origin, `${head.size}`]);
    const known = this.heads.get(at) || head;
    const signed = await byline.signers(head.note, keys);
    require(signed.length, `no trusted key of '${head.origin}' signed the tree head`);
    if (known.root !== head.root) {
      for (const line of `${known.note.text}\n${head.note.text}`.split("\n")) this.say(`    ${line}`, "");
      throw new byline.Refused(`A FORK: two signed tree heads of ${head.origin} over ${head.size} leaves`);
    }
    require(head.size > 0n || head.root === byline.EMPTY_ROOT, "an empty log's root is wrong");
    this.heads.set(at, { ...head, trusted: keys });
    const cosigners = (await byline.requireQuorum(this.policy, head)).join(", ");
    this.say(`the tree head of ${head.origin} over ${byline.grouped(head.size)} leaves is signed by key ` +
      `${signed.map((key) => key.id).join(", ")}, ${cosigners ? `cosigned by ${cosigners}` : "without a witness"}`);
  }
  async included(head, at) {
    const { require } = byline;
    const hashed = await byline.marked(0, byline.bytesOf(at.leaf));
    const root = await byline.fold(hashed, at.index, head.size, at.path, byline.nodeHash);
    require(root === head.root, `leaf ${at.index} is not in the log of this tree head`);
    const leaf = byline.parseLeaf(at.leaf);
    const place = JSON.stringify([head.origin, `${at.index}`]);
    const seq = leaf.type === "entry" ? leaf.seq : 0n;
    if (!this.leaves.has(place)) this.leaves.set(place, { ...head, index: at.index, hashed, seq });
    require(this.leaves.get(place).hashed === hashed, `A FORK: leaf ${at.index} is another one in another file`);
    return leaf;
  }
  async rotate(head, leaf, keys) {
    const [older, newer] = [await byline.parseKey(leaf.old), await byline.parseKey(leaf.new)];
    const isOurs = [leaf.origin, older.name, newer.name].every((name) => name === head.origin);
    byline.require(isOurs, "a key leaf is of another log");
    const message = byline.bytesOf(`byline-key/v1\n${leaf.origin}\n${leaf.new}\n`);
    await byline.requireSigned(older, message, byline.base64(leaf.signature, 64));
    const has = (key) => keys.some((each) => each.hex === key.hex);
    if (has(older) && !has(newer)) {
      keys.push(newer);
      this.say(`key ${older.id} announces key ${newer.id} as the next, in the log`);
    }
  }

  async proof(source) {
    const { require, shaped, text } = byline;
    const gap = source.indexOf("\n\n");
    const lines = source.slice(0, Math.max(gap, 0)).split("\n");
    require(gap >= 0 && lines.length >= 3 && lines[1].startsWith("extra "), "it is no whole .tlog-proof");
    require(lines[2].startsWith("index ") && byline.SIZE.test(lines[2].slice(6)), "the index can't be read");
    const raw = byline.base64(lines[1].slice(6));
    const opening = byline.parseJson(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw));
    const at = shaped(opening, { leaf: text });
    Object.assign(at, { index: BigInt(lines[2].slice(6)), path: lines.slice(3).map((line) => byline.hash64(line)) });
    const { head, leaves } = await this.head(source.slice(gap + 2), [...byline.further(opening), at]);
    (await this.opened(head, at, opening, leaves)).said.forEach((sentence) => this.say(sentence));
    return head;
  }
  async set(first, rest) {
    const { require, shaped, text } = byline;
    const { checkpoint } = shaped(first, { v: byline.version, checkpoint: text });
    const { head, leaves } = await this.head(checkpoint, byline.further(first));
    const shape = { index: byline.number, path: byline.listOf(byline.hash64), opening: byline.any };
    let statement = null;
    const legs = [];
    const lines = rest.split("\n");
    if (lines[lines.length - 1] === "") lines.pop();
    require(lines.length, "it has no proof in it");
    for (let count = 0; count < lines.length; count++) {
      if (count % 1000 === 999) await new Promise((resume) => setTimeout(resume)); // the page lives
      const at = shaped(byline.parseJson(lines[count]), shape);
      at.leaf = shaped(at.opening, { leaf: text }).leaf;
      const own = byline.further(at.opening);
      const known = own.length ? new Map(leaves) : leaves;
      for (const each of own) known.set(each.index, await this.included(head, each));
      const leaf = await this.opened(head, at, at.opening, known);
      if (leaf.type === "statement") {
        require(count === 0, "a statement stands among lines");
        statement = leaf.opening;
        this.say(leaf.said[0]);
      } else {
        require(at.opening.get("object") === "line", "it has something else than a statement and lines");
        legs.push(...leaf.opened);
      }
    }
    this.say(`${byline.grouped(legs.length)} lines are in the log: in each one's entry what is credited is ` +
      "what is debited, and the line is the part of it that it says");
    if (statement) this.statement(statement, legs);
    return head;
  }
  async opened(head, at, opening, leaves) {
    const { require, shaped, text } = byline;
    const { object: name } = shaped(opening, { v: byline.version, object: text });
    const leaf = await this.included(head, at);
    const types = { line: ["entry"], leaf: ["manifest", "key"] };
    const isSo = (Object.hasOwn(types, name) ? types[name] : [name]).includes(leaf.type);
    require(isSo, `a leaf of type '${leaf.type}' is opened as '${name}'`);
    leaf.said = [`leaf ${byline.grouped(at.index)} is in the log: a ${leaf.type} leaf`];
    if (leaf.type === "statement") {
      const { commitment } = leaf;
      leaf.opening = await byline.openedStatement(opening, leaf);
      leaf.said[0] += `, '${leaf.opening.account}' for ${leaf.month}`;
      const key = JSON.stringify([head.origin, leaf.opening.account, leaf.month]);
      if (!this.statements.has(key)) this.statements.set(key, { ...leaf.opening, commitment, origin: head.origin, lines: null });
      const known = this.statements.get(key);
      require(known.commitment === commitment, "a month has two statements");
      leaf.opening = known;
    } else if (leaf.type === "entry") {
      byline.checkEntry(leaf, at.index);
      leaf.opened = await byline.openedLegs(opening, leaf);
      leaf.said = [...byline.sentencesOf(leaf, at.index), ...byline.manifestBefore(leaf, leaves)];
      leaf.shown = await byline.checkManifest(opening, leaf);
      this.remember(head.origin, leaf);
    }
    return leaf;
  }
  remember(origin, entry) {
    const place = JSON.stringify([origin, entry.key]);
    if (!this.entries.has(place)) this.entries.set(place, entry);
    const known = this.entries.get(place);
    byline.require(known.seq === entry.seq, `the event '${entry.key}' was posted twice`);
    known.shown = known.shown || entry.shown;
    for (const leg of entry.opened) {
      if (!leg.n) continue;
      const key = JSON.stringify([origin, leg.account]);
      if (!this.chains.has(key)) this.chains.set(key, new Map());
      const chain = this.chains.get(key);
      if (!chain.has(leg.n)) chain.set(leg.n, leg);
      const first = chain.get(leg.n);
      byline.require(first.node.hash === leg.node.hash, `A FORK: line ${leg.n} of '${leg.account}' is another one elsewhere`);
      first.decision = first.decision || leg.decision;
    }
  }
  statement(statement, legs) {
    const { grouped, NO_LEG } = byline;
    const { account, month, first_n: first, last_n: last, opening, closing } = statement;
    const what = `the statement of '${account}' for ${month}: `;
    const must = (holds, sentence) => byline.require(holds, what + sentence);
    must(first >= 1n && first <= last + 1n, "its numbers can't be");
    must(BigInt(legs.length) === last + 1n - first, `it has ${last + 1n - first} lines, and ${legs.length} are here`);
    must(legs.every((leg, i) => leg.n === first + BigInt(i)), `its lines are not ${first} to ${last}`);
    must(legs.every((leg) => leg.account === account), "a line is another account's");
    const [begins, ends] = legs.length ? [legs[0].prev, legs[legs.length - 1].node.hash] : [statement.head, statement.before];
    must(begins === statement.before, "it begins after another line than it says");
    byline.requireChain(legs);
    must(ends === statement.head, "it ends at another line than it says");
    must((statement.before === NO_LEG) === (first === 1n), "the line before it can't be");
    must(first > 1n || opening === 0n, "it opens with money from nowhere");
    byline.requireInMonth(statement, byline.newestOf(legs.map((leg) => leg.entry.time_ms)));
    const total = legs.reduce((sum, leg) => sum + leg.nano, 0n);
    must(opening + total === closing, "it does not add up");
    statement.lines = legs;
    this.say(`${what}lines ${grouped(first)} to ${grouped(last)}, none left out, and ${grouped(opening)} + ` +
      `${grouped(total)} = ${grouped(closing)} nano-USD`);
  }
  async receipt(source) {
    const { require } = byline;
    const note = byline.parseNote(source);
    const keys = this.policy.logs.filter((key) => key.name.endsWith("/receipts"));
    const signed = await byline.signers(note, keys);
    require(signed.length, "no trusted key for receipts signed it");
    const lines = note.text.split("\n");
    require(lines.length === 3, "it is no receipt");
    const receipt = byline.shaped(byline.parseJson(lines[1]), byline.RECEIPT);
    for (const [operation, each] of [["capture", receipt.capture], ...receipt.settles.map((s) => ["settle", s])])
      require(each.key.startsWith(`${receipt.inference}/${operation}/`), "the receipt names another inference's entries");
    for (const key of signed) this.receipts.push([key.name.slice(0, -"/receipts".length), receipt]);
    this.say(`the receipt is signed by ${signed[0].name}: inference '${receipt.inference}', charge ` +
      `${byline.grouped(receipt.charge)} nano-USD, ${receipt.state}`);
  }

  // Together

  async conclude(older) {
    for (const [name, source] of this.bare)
      await this.attempt(name, () => (source.startsWith("old ") ? this.history(source) : this.head(source)));
    for (const origin of new Set([...this.heads.values()].map((head) => head.origin)))
      await this.attempt(origin, () => this.oneHistory(origin, older));
    for (const chain of this.chains.values()) {
      const legs = [...chain.values()].sort((a, b) => (a.n < b.n ? -1 : 1));
      await this.attempt(`'${legs[0].account}'`, () => this.chain(legs));
    }
    for (const [name, source] of this.tables) await this.attempt(name, () => this.table(source));
    const accounts = new Map();
    for (const each of this.statements.values()) {
      const key = JSON.stringify([each.origin, each.account]);
      accounts.set(key, [...(accounts.get(key) || []), each]);
    }
    for (const mine of accounts.values()) await this.attempt(`'${mine[0].account}'`, () => this.successive(mine));
    for (const [origin, receipt] of this.receipts)
      await this.attempt(`the receipt of '${receipt.inference}'`, () => this.promised(origin, receipt));
  }
  async history(source) {
    const { require, grouped } = byline;
    const lines = source.slice(0, Math.max(source.indexOf("\n\n"), 0)).split("\n");
    const { head } = await this.head(afterGap(source));
    require(lines[0].startsWith("old ") && byline.SIZE.test(lines[0].slice(4)), "the older size can't be read");
    const [old, path] = [BigInt(lines[0].slice(4)), lines.slice(1).map((line) => byline.hash64(line))];
    if (old === 0n) {
      require(!path.length, "from nothing there is nothing to compare");
      return;
    }
    const older = this.heads.get(JSON.stringify([head.origin, `${old}`]));
    require(older, `the tree head over ${old} leaves, with which it begins, is not here`);
    const [first, second] = await byline.olderAndNewer(old, head.size, path, older.root);
    require(first === older.root && second === head.root, "A FORK: the older log is not the beginning");
    this.linked.push([head.origin, old, head.size]);
    this.say(`the log over ${grouped(head.size)} leaves begins with the one over ${grouped(old)} leaves`);
  }
  oneHistory(origin, older) {
    const { require, grouped } = byline;
    const seqs = [...this.leaves.values()].filter((leaf) => leaf.origin === origin && leaf.seq);
    seqs.sort((a, b) => (a.index < b.index ? -1 : 1));
    const inOrder = seqs.every((leaf, i) => i === 0 || seqs[i - 1].seq < leaf.seq);
    require(inOrder, "the log does not have its entries in the journal's order");
    const sizes = [...this.heads.values()].filter((head) => head.origin === origin).map((head) => head.size);
    sizes.sort((a, b) => (a < b ? -1 : 1));
    if (older) require(older.origin === origin, `the older tree head is of ${older.origin}`);
    const newest = sizes[sizes.length - 1];
    const first = older && older.size ? older.size : newest;
    const known = new Set([first]);
    for (let i = 0; i < sizes.length; i++)
      for (const [name, a, b] of this.linked)
        if (name === origin && (known.has(a) || known.has(b))) known.add(a).add(b);
    const rest = sizes.filter((size) => !known.has(size) && size);
    if (older && older.size) {
      require(!rest.length, `no .consistency file leads from ${first} leaves to ${rest.join(", ")}`);
      this.say(newest > first ? `${origin} has one history since ${grouped(first)} leaves`
        : `(not compared: no tree head here is newer than ${grouped(first)} leaves)`);
      return;
    }
    if (older) this.say("(not compared: the older tree head is of an empty log)");
    const apart = sizes.filter((size) => size).join(", ");
    if (rest.length) this.say(`(not shown: whether the logs over ${apart} leaves are one history)`);
  }
  chain(legs) {
    const { require, grouped } = byline;
    byline.requireChain(legs);
    if (legs.length > 1) {
      const gaps = legs.filter((leg, i) => i > 0 && leg.n !== legs[i - 1].n + 1n).length;
      const leftOut = gaps ? `with ${gaps} gaps: lines in between are not here` : "none left out between them";
      this.say(`${grouped(legs.length)} lines of '${legs[0].account}', ${grouped(legs[0].n)} to ` +
        `${grouped(legs[legs.length - 1].n)}: ${leftOut}`);
    }
    const payouts = legs.filter((leg) => leg.decision);
    payouts.forEach((leg, i) => {
      const twice = i > 0 && leg.decision.first_seq <= payouts[i - 1].decision.last_seq;
      require(!twice, `the payout in entry ${leg.entry.seq} pays lines a second time`);
    });
    payouts.forEach((leg) => this.paid(leg, legs));
  }
  paid(payout, legs) {
    const { first_seq: first, last_seq: last, lines_nano: decided } = payout.decision;
    const [start, end] = [firstFrom(legs, first), firstFrom(legs, last + 1n)];
    const around = legs.slice(Math.max(start - 1, 0), end + 1);
    const isWhole = around.every((leg, i) => i === 0 || leg.n === around[i - 1].n + 1n);
    const what = `the payout in entry ${payout.entry.seq}`;
    if (!isWhole || (start === 0 && legs[0].n > 1n)) {
      this.say(`(not all here: the lines that ${what} pays)`);
      return;
    }
    const lines = legs.slice(start, end).filter((leg) => leg.entry.kind !== "payout");
    const sum = lines.reduce((total, leg) => total + leg.nano, 0n);
    byline.require(sum === decided, `${what} cites lines of another sum`);
    this.say(`the lines that ${what} cites sum to ${byline.grouped(sum)} nano-USD, as decided`);
  }
  async table(source) {
    const { require, grouped } = byline;
    const table = byline.shaped(byline.parseJson(source), byline.TABLE);
    const sha = await byline.sha256(byline.bytesOf(source));
    const found = [...this.statements.values()].filter((each) => each.sha256 === sha);
    require(found.length, "no statement that is proven here has this text");
    const isIts = found.every((s) => s.account === table.account && s.month === table.month &&
      s.opening === table.opening_nano && s.closing === table.closing_nano);
    require(isIts, "its account, month or balances are not those of the proof");
    const rows = table.lines;
    const isRow = (leg, row) => leg.entry.seq === row.seq && leg.entry.key === row.key &&
      leg.entry.kind === row.kind && leg.nano === row.nano;
    for (const each of found) {
      const isAll = each.lines && each.lines.length === rows.length && each.lines.every((leg, i) => isRow(leg, rows[i]));
      require(isAll, "its lines are not those of a statement that is proven here");
      this.say(`${grouped(rows.length)} lines of the statement of '${each.account}' for ${each.month} are those that are proven`);
    }
  }
  successive(statements) {
    statements.sort((a, b) => (a.month < b.month ? -1 : 1));
    statements.forEach((after, i) => {
      if (i === 0) return;
      const before = statements[i - 1];
      const what = `the statements for ${before.month} and ${after.month} `;
      byline.require(after.first_n > before.last_n, `${what}share lines`);
      if (after.first_n !== before.last_n + 1n) return;
      const follows = after.before === before.head && after.opening === before.closing;
      byline.require(follows, `${what}do not follow each other`);
      this.say(`${what}follow each other: nothing lies between`);
    });
  }
  promised(origin, receipt) {
    const { require, grouped } = byline;
    const both = { inference: receipt.inference, adapter_version: receipt.adapter_version };
    const captured = { ...both, charge: receipt.charge, policy: receipt.policy };
    for (const [each, claims] of [[receipt.capture, captured], ...receipt.settles.map((s) => [s, both])]) {
      const entry = this.entries.get(JSON.stringify([origin, each.key]));
      if (!entry) {
        this.say(`(not here: the proof of '${each.key}', which the receipt promises)`);
        continue;
      }
      for (const [name, promised] of Object.entries(claims))
        require(entry[name] === promised, `${name} is ${entry[name]}, and ${promised} was promised`);
      const isNamed = each.manifest_sha256 === null || entry.manifest !== null;
      const isKept = isNamed && (!entry.shown || entry.shown === each.manifest_sha256);
      require(isKept, `entry ${entry.seq} has another manifest than was promised`);
      this.say(`entry ${grouped(entry.seq)} of the log keeps what the receipt promised of '${each.key}'`);
      if (!entry.shown && each.manifest_sha256 !== null)
        this.say(`(not shown: the manifest of entry ${grouped(entry.seq)}, which the receipt promises)`);
    }
  }
};

// Nothing in a file begins a line of its own, or hides what stands beside it.
const printable = (sentence) => sentence.replace(/[\p{C}\p{Z}]/gu, (c) => (c === " " ? c : "?"));

// Where the first leg of this entry or a later one stands.
function firstFrom(legs, seq) {
  let [start, end] = [0, legs.length];
  while (start < end) {
    const middle = (start + end) >> 1;
    if (legs[middle].entry.seq < seq) start = middle + 1;
    else end = middle;
  }
  return start;
}

function afterGap(source) {
  const gap = source.indexOf("\n\n");
  return gap < 0 ? "" : source.slice(gap + 2);
}

// Whom to trust, or a sentence where that is not clear.
byline.trusted = async (policySource) => {
  try {
    return { policy: await byline.parsePolicy(policySource), said: [] };
  } catch (problem) {
    const why = problem instanceof byline.Refused ? problem.message : "it can't be read";
    return { policy: null, said: [{ mark: "FAILED", sentence: `it is not clear whom to trust: ${why}` }] };
  }
};

// Checks files, `[name, text]` each, under a policy's text; `against` is the text of an older head.
byline.check = async (files, policySource, against = null) => {
  const { policy, said } = await byline.trusted(policySource);
  if (!policy) return { holds: false, said };
  const found = new byline.Files(policy);
  for (const [name, source] of files) await found.attempt(name, () => found.read(name, source));
  await found.conclude(await found.olderHead(against));
  return { holds: !found.failed.length && files.length > 0, said: found.said };
};

// The page --------------------------------------------------------------------------------------

if (typeof document !== "undefined") {
  const part = (id) => document.getElementById(id);
  const chosen = []; // [name, text]
  let older = null;
  let replayed = null; // an export: its name, and a file by each path; then no other file is chosen
  let checks = 0; // of those that were begun only the last one is told

  const textOf = async (file) => {
    const raw = await file.arrayBuffer();
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
  };
  async function take(files) {
    for (const file of files) {
      let source = "";
      try {
        if (file.size < 2 ** 29) source = await textOf(file); // a browser's texts end there
      } catch {
        // what is no text is no proof: as an empty file it is refused
      }
      const at = chosen.findIndex(([name]) => name === file.name);
      chosen.splice(at < 0 ? chosen.length : at, at < 0 ? 0 : 1, [file.name, source]);
    }
    replayed = null;
    part("export").value = "";
    await check();
  }
  async function takeExport(files) {
    forget();
    const [name] = files.length ? files[0].webkitRelativePath.split("/") : [""];
    const byPath = (file) => [file.webkitRelativePath.slice(name.length + 1), file];
    replayed = files.length ? { name, folder: new Map(Array.from(files, byPath)) } : null;
    await check();
  }
  function forget() {
    checks++;
    chosen.length = 0;
    replayed = null;
    part("files").value = "";
    part("said").replaceChildren();
    part("verdict").textContent = part("balances").textContent = "";
    part("chosen").textContent = "no file yet";
  }
  async function check() {
    const names = replayed ? [replayed.name] : chosen.map(([name]) => name);
    part("chosen").textContent = names.join(", ") || "no file yet";
    const mine = ++checks;
    const policy = part("policy").value;
    if (!names.length || !policy.trim()) return;
    part("verdict").textContent = "checking …";
    part("verdict").className = "";
    const { holds, said, balances = [] } = replayed
      ? await byline.replay(replayed.name, replayed.folder, policy, older)
      : await byline.check([...chosen], policy, older);
    if (mine !== checks) return;
    const rows = balances.map(([account, nano]) => `${byline.grouped(nano).padStart(26)}  ${printable(account)}\n`);
    part("balances").textContent = rows.join("");
    part("said").replaceChildren(...said.map(({ mark, sentence }) => {
      const line = document.createElement("li");
      line.className = mark === "ok" ? "holds" : mark === "FAILED" ? "fails" : "";
      line.textContent = mark === "FAILED" ? `FAILED: ${sentence}` : sentence;
      return line;
    }));
    const open = said.filter(({ mark, sentence }) => !mark && sentence.startsWith("(")).length;
    const all = open ? `All of it holds; in brackets, ${open} not shown.` : "All of it holds.";
    part("verdict").textContent = holds ? all : "FAILED: do not rely on these files.";
    part("verdict").className = holds ? "holds" : "fails";
  }

  part("files").addEventListener("change", (event) => take(event.target.files));
  part("export").addEventListener("change", (event) => takeExport(event.target.files));
  part("policy").addEventListener("change", check);
  part("older").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    older = file ? await textOf(file).catch(() => "") : null;
    await check();
  });
  part("empty").addEventListener("click", () => {
    part("export").value = "";
    forget();
  });
  for (const kind of ["dragenter", "dragover", "drop"])
    document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("drop", (event) => take(event.dataTransfer.files));
  if (!globalThis.crypto?.subtle)
    part("verdict").textContent =
      "This browser gives a page no cryptography here: open it by https, from localhost or as a file.";
}
