/* Computes every account's balance anew from an export: what `byline verify --replay` does, in its
words. Nothing is taken from a sum that somebody else made. It stands on verify.js. */
"use strict";

byline.Replay = class {
  // `folder`: a file (a Blob) by its path in the export, with "/".
  constructor(folder, policy) {
    Object.assign(this, { folder, files: new byline.Files(policy), seq: 0n, unshown: 0 });
    this.statements = new Map(); // by account, in the log's order
    this.earned = new Map(); // by account, of each line but payouts: seq, nano
    this.paid = new Map(); // by account: the last entry paid for, and what was left (null: not shown)
    this.payouts = []; // whose decision is shown
    this.payers = new Map(); // by inference: the application's account
    this.keys = new Set();
    this.manifests = new Map(); // by index: leaves that no entry has paid by yet
    this.balances = new Map();
    this.chains = new Map(); // by account, of each line: hash, balance after it, seq, time
  }

  async run(older) {
    const { require, grouped } = byline;
    const head = byline.parseHead(textIn(await this.bytes("checkpoint")));
    const keys = this.files.policy.logs.filter((key) => key.name === head.origin);
    const hashes = [];
    const openings = this.openings();
    for await (const data of this.leaves(Number(head.size))) {
      const index = BigInt(hashes.length);
      if (index % 1000n === 999n) await new Promise((resume) => setTimeout(resume)); // the page lives
      hashes.push(await byline.marked(0, data));
      const leaf = byline.parseLeaf(textIn(data));
      if (leaf.type === "key") await this.files.rotate(head, leaf, keys);
      else if (leaf.type === "manifest") this.manifests.set(index, leaf);
      else {
        const opening = (await openings.next()).value ?? new Map();
        const at = byline.shaped(opening, { index: byline.number }).index;
        require(at === index, `the openings have leaf ${at} where ${index} should be`);
        if (leaf.type === "entry") await this.entry(leaf, index, opening);
        else await this.statement(leaf, index, opening);
      }
    }
    require((await openings.next()).done, "there are more openings than leaves");
    const root = hashes.length ? await byline.rootOver(hashes, byline.nodeHash) : byline.EMPTY_ROOT;
    require(root === head.root, "the leaves are not those of the tree head");
    const left = [...this.manifests.keys()].join(", ");
    require(!this.manifests.size, `nobody was paid by the manifests [${left}]`);
    for (const leg of this.payouts) this.cited(leg);
    await this.files.trust(head, keys);
    await this.tiles(hashes);
    if (older && older.size) {
      require(older.origin === head.origin, `the older tree head is of ${older.origin}`);
      const isShorter = older.size <= head.size;
      require(isShorter, `the older log has ${older.size} leaves, and this ${head.size}`);
      const first = await byline.rootOver(hashes.slice(0, Number(older.size)), byline.nodeHash);
      require(first === older.root, "A FORK: the older log is not the beginning");
      this.files.say(`${head.origin} has one history since ${grouped(older.size)} leaves`);
    }
    const total = [...this.balances.values()].reduce((sum, nano) => sum + nano, 0n);
    require(total === 0n, `all accounts together have ${total} nano-USD, not 0`);
    const statements = [...this.statements.values()].reduce((sum, each) => sum + each.length, 0);
    this.files.say(`${grouped(this.seq)} entries make the balances of ${grouped(this.balances.size)} ` +
      `accounts, 0 in all; ${grouped(statements)} statements agree`);
    if (this.unshown) this.files.say(`(not shown: what was decided in ${grouped(this.unshown)} entries)`);
  }

  async bytes(path) {
    const isSmall = this.folder.get(path).size <= 2 ** 25; // a bundle: 256 leaves of 64 KiB
    byline.require(isSmall, `${path.replace(/^tile\/(.*?)(\.p\/\d+)?$/, "tile $1")} is too large`);
    return new Uint8Array(await this.folder.get(path).arrayBuffer());
  }
  async *openings() {
    const decoder = new TextDecoderStream("utf-8", { fatal: true, ignoreBOM: true });
    let rest = "";
    for await (const piece of this.folder.get("openings.jsonl").stream().pipeThrough(decoder)) {
      const lines = (rest + piece).split("\n");
      rest = lines.pop();
      const isShort = [rest, ...lines].every((line) => line.length <= 2 ** 26);
      byline.require(isShort, "a line of openings.jsonl is too long");
      for (const line of lines) yield byline.parseJson(line);
    }
    if (rest) yield byline.parseJson(rest);
  }
  async *leaves(size) {
    for (let index = 0; index * 256 < size; index++) {
      const width = Math.min(size - index * 256, 256);
      let bundle = await this.tile("entries", index, width);
      for (let i = 0; i < width; i++) {
        const end = bundle.length < 2 ? Infinity : 2 + 256 * bundle[0] + bundle[1];
        byline.require(bundle.length >= end, `entry bundle ${index} is too short`);
        yield bundle.subarray(2, end);
        bundle = bundle.subarray(end);
      }
    }
  }
  // A tile's bytes; a full one stands for a partial one.
  async tile(level, index, width) {
    let name = `${index % 1000}`.padStart(3, "0");
    for (let rest = Math.floor(index / 1000); rest; rest = Math.floor(rest / 1000))
      name = `x${`${rest % 1000}`.padStart(3, "0")}/${name}`;
    const whole = `tile/${level}/${name}`;
    const part = `${whole}.p/${width}`;
    const path = width < 256 && this.folder.has(part) ? part : whole;
    byline.require(this.folder.has(path), `the export lacks tile ${level}/${name}`);
    return this.bytes(path);
  }
  // The published tiles are those of the leaves.
  async tiles(hashes) {
    let checked = 0;
    for (let level = 0; hashes.length; level++) {
      const above = [];
      for (let index = 0; index * 256 < hashes.length; index++) {
        const group = hashes.slice(index * 256, index * 256 + 256);
        const tile = await this.tile(`${level}`, index, group.length);
        const isIts = byline.hexOf(tile.subarray(0, 32 * group.length)) === group.join("");
        byline.require(isIts, `tile ${level}/${index} is wrong`);
        if (group.length === 256) above.push(await byline.rootOver(group, byline.nodeHash));
        checked++;
      }
      hashes = above;
    }
    this.files.say(`${byline.grouped(checked)} tiles are those of the leaves`);
  }

  async entry(entry, index, opening) {
    const must = (holds, sentence) => byline.require(holds, `entry ${entry.seq}: ${sentence}`);
    byline.checkEntry(entry, index);
    must(entry.seq === this.seq + 1n, `it does not follow entry ${this.seq}`);
    must(!this.keys.has(entry.key), "its event was posted before");
    entry.said = [];
    entry.opened = await byline.openedLegs(new Map([...opening, ["object", "entry"]]), entry);
    must(BigInt(entry.opened.length) === entry.legs.count, "a leg is not open");
    await this.settled(entry, opening, must);
    this.payer(entry, must);
    for (const leg of entry.opened) this.post(leg, must);
    this.seq = entry.seq;
    this.keys.add(entry.key);
  }
  // What was decided before is what is paid.
  async settled(entry, opening, must) {
    if (entry.manifest === null) {
      must(["deposit", "hold", "void", "expire"].includes(entry.kind), "it names no manifest");
      return;
    }
    const shown = byline.shaped(opening, { manifest: byline.any }).manifest;
    await byline.checkManifest(opening, entry);
    const hasText = shown.has("text");
    if (["settle", "payout"].includes(entry.kind) && !hasText) this.unshown++;
    if (entry.kind !== "settle") return;
    const leaf = this.manifests.get(entry.manifest_index);
    this.manifests.delete(entry.manifest_index);
    const isIts = leaf && leaf.key === entry.key && leaf.manifest === entry.manifest;
    must(isIts, `leaf ${entry.manifest_index} is not its manifest`);
    if (!hasText) return;
    const paid = new Set(entry.opened.filter((leg) => leg.nano > 0n).map((leg) => leg.account));
    for (const [account, ppb] of byline.sharesIn(shown.get("text"), entry)) {
      const isPaid = paid.has(account) || entry.legs.debits * ppb < byline.PPB;
      must(isPaid, `'${account}' has a share, and was paid nothing`);
    }
  }
  // What an application held is charged to it, and goes back to it.
  payer(entry, must) {
    if (["deposit", "adjust", "release"].includes(entry.kind)) return;
    const own = entry.kind === "refund" ? entry.inference : entry.key.split("/", 1)[0];
    for (const { account } of entry.opened) {
      if (!account.startsWith("app:")) continue;
      if (entry.kind === "hold" && !this.payers.has(own)) this.payers.set(own, account);
      must(this.payers.get(own) === account, `'${account}' did not hold for its inference`);
    }
  }
  post(leg, must) {
    const { account } = leg;
    const balance = (this.balances.get(account) ?? 0n) + leg.nano;
    this.balances.set(account, balance);
    if (byline.isOf(account, "hold:", "open:")) {
      // Whatever takes from it empties it.
      const isWhole = leg.nano < 0n ? balance === 0n : balance > 0n;
      must(isWhole, `'${account}' gives more or less than it has`);
      if (balance === 0n) this.balances.delete(account);
      return;
    }
    const mayOwe = leg.entry.kind === "adjust" && byline.isOf(account, "contrib:", "unattributed:");
    const isCovered = leg.nano >= 0n || balance >= 0n || mayOwe ||
      byline.isOf(account, "app:", "funding", "payout", "refund");
    must(isCovered, `'${account}' gives what it does not have`);
    if (!this.chains.has(account)) this.chains.set(account, []);
    const chain = this.chains.get(account);
    const before = chain.length ? chain[chain.length - 1].hash : byline.NO_LEG;
    const follows = leg.n === BigInt(chain.length) + 1n && leg.prev === before;
    must(follows, `it does not follow line ${chain.length} of '${account}'`);
    chain.push({ hash: leg.node.hash, balance, seq: leg.seq, time: leg.entry.time_ms });
    if (leg.entry.kind !== "payout") {
      if (!this.earned.has(account)) this.earned.set(account, []);
      this.earned.get(account).push([leg.seq, leg.nano]);
    } else if (account !== "payout") this.payout(leg, must);
  }
  // A payout pays each line once, and begins where the one before it ended.
  payout(leg, must) {
    const { decision, account } = leg;
    const [lastSeq, left] = this.paid.get(account) ?? [0n, 0n];
    this.paid.set(account, [lastSeq, null]);
    if (!decision) return;
    const before = decision.first_seq - 1n;
    const follows = left === null ? before >= lastSeq : before === lastSeq && decision.opening_nano === left;
    must(follows, "the payout does not begin where the one before it ended");
    const cited = (this.earned.get(account) ?? [])
      .filter(([seq]) => seq >= decision.first_seq && seq <= decision.last_seq)
      .reduce((sum, [, nano]) => sum + nano, 0n);
    must(cited === decision.lines_nano, "the payout cites lines of another sum");
    this.paid.set(account, [decision.last_seq, decision.opening_nano + decision.lines_nano - decision.nano]);
    this.payouts.push(leg);
  }
  // The statement that a payout names is in the log, and ends with the lines it pays.
  cited({ account, decision, seq }) {
    const what = `entry ${seq}: the statement that the payout names`;
    const month = decision.statement.slice(decision.statement.lastIndexOf("/") + 1);
    const found = (this.statements.get(account) ?? []).find((each) => each.month === month);
    byline.require(found, `${what} is not in the log; it comes up to some minutes after the payout`);
    const until = this.chains.get(account).filter((line) => line.seq <= decision.last_seq).length;
    byline.require(found.last_n === BigInt(until), `${what} does not end with the lines that it pays`);
  }
  // A statement says what the account had at its beginning and at its end.
  async statement(leaf, index, opening) {
    const { require } = byline;
    const found = await byline.openedStatement(opening, leaf);
    const chain = [{ hash: byline.NO_LEG, balance: 0n }, ...(this.chains.get(found.account) ?? [])];
    const what = `leaf ${index}: the statement of '${found.account}' for ${found.month}`;
    const { first_n: first, last_n: last } = found;
    const isThere = first >= 1n && first <= last + 1n && last < BigInt(chain.length);
    require(isThere, `${what} has lines that are not there`);
    const [before, end] = [chain[Number(first) - 1], chain[Number(last)]];
    const isRight = found.before === before.hash && found.opening === before.balance &&
      found.head === end.hash && found.closing === end.balance;
    require(isRight, `${what} is wrong`);
    if (!this.statements.has(found.account)) this.statements.set(found.account, []);
    const earlier = this.statements.get(found.account);
    if (earlier.length) {
      const before = earlier[earlier.length - 1];
      const follows = found.month > before.month && found.first_n === before.last_n + 1n;
      require(follows, `${what} does not follow the one for ${before.month}`);
    } else require(first === 1n, `${what} is the first, and begins with another line`);
    const mine = chain.slice(Number(first), Number(last) + 1);
    byline.requireInMonth(found, byline.newestOf(mine.map((line) => line.time)));
    earlier.push(found);
  }
};

const textIn = (bytes) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);

// Replays an export, a file (a Blob) by each path in it, `against` the text of an older head;
// `balances` are [account, nano-USD] pairs.
byline.replay = async (name, folder, policySource, against = null) => {
  const { policy, said } = await byline.trusted(policySource);
  if (!policy) return { holds: false, said, balances: [] };
  const run = new byline.Replay(folder, policy);
  const older = await run.files.olderHead(against);
  await run.files.attempt(name, () => run.run(older));
  const holds = !run.files.failed.length;
  const balances = holds ? [...run.balances].sort(([a], [b]) => (a < b ? -1 : 1)) : [];
  return { holds, said: run.files.said, balances };
};
