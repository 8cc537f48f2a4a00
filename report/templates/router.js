// The router's rule, as in edge/router.py and report/inspect/whatif.py, for a page that has no
// Python. The tests run both on the same random cases: change one and they tell.
//
// A plan:   {plan, agreement, error, bytes, layers, rank, local}; rank is its place in the order of
//           plans, layers are the parts of its frame that are worth an answer: [count, agreement, bytes].
// An option: a plan with device_ms, network_ms, cloud_ms, total_ms and parts; Infinity is never.
// An answer: an option with agreement, network_ms and total_ms of what is answered, and how many
//           layers that is, 0 for the whole.
"use strict";

const never = (ms) => (ms === null ? Infinity : ms);

// One option per plan on an ideal link; times are per plan, in their order.
function optionsOn(plans, device_ms, cloud_ms, { rtt_ms, mbps, cloud_speed }) {
  return plans.map((plan, at) => {
    const device = never(device_ms[at]);
    const transfer = (bytes) => rtt_ms + (bytes * 8e-3) / mbps;
    const network = plan.local ? 0 : transfer(plan.bytes);
    const cloud = plan.local ? 0 : never(cloud_ms[at]) / cloud_speed;
    return {
      ...plan,
      at,
      device_ms: device,
      network_ms: network,
      cloud_ms: cloud,
      total_ms: device + network + cloud,
      parts: plan.layers.map(([layers, agreement, bytes]) => ({
        layers,
        agreement,
        total_ms: transfer(bytes) + (device + cloud),
      })),
    };
  });
}

// By finish, then bytes, then name.
function tieBreak(one, other) {
  if (one.total_ms !== other.total_ms) return one.total_ms - other.total_ms;
  return one.bytes - other.bytes || one.rank - other.rank;
}

// What is answered for the time left: from the whole, or where it is late from the layers in time.
function answered(option, left_ms) {
  const come = option.total_ms > left_ms ? option.parts.filter((p) => p.total_ms <= left_ms) : [];
  if (!come.length) return { ...option, layers: 0 };
  const { layers, agreement, total_ms } = come[come.length - 1];
  const network_ms = total_ms - (option.device_ms + option.cloud_ms);
  return { ...option, agreement, network_ms, total_ms, layers };
}

// The best option for the time left; without one that fits, the local one.
function choose(options, left_ms) {
  const local = options.find((option) => option.local);
  const floor = local && local.total_ms <= left_ms ? local.agreement : 0;
  const fitting = [];
  for (const option of options) {
    const { agreement, total_ms, layers } = answered(option, left_ms);
    const gain = option.local ? 0 : Math.max(agreement - floor, layers ? 0 : -1);
    if (total_ms <= left_ms) fitting.push({ option, gain });
  }
  if (!fitting.length) return { option: local, fits: false };
  const best = Math.max(...fitting.map(({ gain }) => gain));
  const first = fitting.filter(({ gain }) => gain === best).map(({ option }) => option);
  const error = Math.min(...first.map((option) => option.error));
  const alike = first.filter((option) => option.total_ms <= left_ms).map((o) => o.agreement);
  const least = Math.max(...alike) - error;
  const ties = fitting.filter(
    ({ option, gain }) => gain >= best - error || (alike.length && option.agreement >= least),
  );
  return { option: ties.map(({ option }) => option).sort(tieBreak)[0], fits: true };
}

// Every option, best first, with the reason why it was or was not taken.
function explain(options, left_ms) {
  const taken = choose(options, left_ms).option;
  const order = [...options].sort(
    (one, other) =>
      (one === taken ? 0 : 1) - (other === taken ? 0 : 1) ||
      other.agreement - one.agreement ||
      tieBreak(one, other),
  );
  return order.map((option) => ({ option, why: reason(option, taken, left_ms) }));
}

function reason(option, taken, left_ms) {
  const own = answered(option, left_ms);
  const first = own.layers > 1 ? `its first ${own.layers} layers are` : "its first layer is";
  if (option === taken) {
    if (own.total_ms > left_ms) return "taken: nothing fits, and the device always has an answer";
    const fits = "taken: the best agreement that fits";
    return own.layers ? `${fits}, ${fixed(own.agreement * 100, 1)}%; ${first} in time` : fits;
  }
  if (option.device_ms === Infinity) return "never measured on this device";
  if (option.total_ms === Infinity) return "the cloud is out of reach";
  if (own.total_ms > left_ms) return `too slow by ${fixed(option.total_ms - left_ms, 0)} ms`;
  if (own.layers) return `${first} in time, agreeing with ${fixed(own.agreement * 100, 1)}% then`;
  const best = answered(taken, left_ms);
  const gap = best.agreement - option.agreement;
  if (gap > 0) return `agrees ${fixed(gap * 100, 1)} points less`;
  if (option.total_ms > best.total_ms) {
    const later = fixed(option.total_ms - best.total_ms, 0);
    return `as good within the standard error, ${later} ms later`;
  }
  return "as good within the standard error, more bytes";
}

// The choice, the one there would be without it, and how far they are apart.
function verdict(options, left_ms) {
  const { option, fits } = choose(options, left_ms);
  const taken = answered(option, left_ms);
  if (!fits) {
    const late = option.total_ms < Infinity ? `it takes ${msWords(option.total_ms)} ms` : "untimed";
    const words = `nothing fits: the device answers as it can (${late})`;
    return { taken, fits, second: null, words };
  }
  const others = choose(options.filter((other) => other !== option), left_ms);
  if (!others.fits) return { taken, fits, second: null, words: "nothing else fits" };
  const second = answered(others.option, left_ms);
  const sooner = second.total_ms - taken.total_ms;
  const when = `${msWords(Math.abs(sooner))} ms ${sooner >= 0 ? "sooner" : "later"} than`;
  const gap = taken.agreement - second.agreement;
  const tie = second.agreement >= taken.agreement - taken.error;
  const how = tie
    ? `a tie within the standard error, ${when}`
    : `${fixed(gap * 100, 1)} points better and ${when}`;
  return { taken, fits, second, words: `${how} ${second.plan}` };
}

// From which budget on what is answered.
function ladder(options) {
  const all = options.flatMap((o) => [o.total_ms, ...o.parts.map((part) => part.total_ms)]);
  const times = [...new Set(all)];
  const rungs = [];
  for (const from_ms of times.filter((ms) => ms < Infinity).sort((a, b) => a - b)) {
    const { option, fits } = choose(options, from_ms);
    const answer = fits ? answered(option, from_ms) : null;
    const before = rungs.length ? rungs[rungs.length - 1].answer : null;
    if (fits && !(before && before.at === answer.at && before.layers === answer.layers)) {
      rungs.push({ from_ms, answer });
    }
  }
  return rungs;
}

// Digits as Python writes them: a tie goes to the even neighbour.
function fixed(value, digits) {
  const scaled = Math.abs(value) * 10 ** digits;
  const below = Math.floor(scaled);
  if (scaled - below === 0.5 && Number.isInteger(value * 2 ** (digits + 1)) && below % 2 === 0) {
    return ((Math.sign(value) * below) / 10 ** digits).toFixed(digits);
  }
  return value.toFixed(digits);
}

function msWords(ms) {
  if (Math.abs(ms) < 9.95) return fixed(ms, 1);
  return fixed(ms, 0).replace(/\B(?=(\d{3})+$)/g, ",");
}
