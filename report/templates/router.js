// The router's rule, as in edge/router.py and report/inspect/whatif.py, for a page that has no
// Python. The tests run both on the same random cases: change one and they tell.
//
// A plan:   {plan, agreement, error, bytes, rank, local}; rank is its place in the order of plans.
// An option: a plan with device_ms, network_ms, cloud_ms and total_ms; Infinity is never.
"use strict";

const never = (ms) => (ms === null ? Infinity : ms);

// One option per plan on an ideal link; times are per plan, in their order.
function optionsOn(plans, device_ms, cloud_ms, { rtt_ms, mbps, cloud_speed }) {
  return plans.map((plan, at) => {
    const device = never(device_ms[at]);
    const network = plan.local ? 0 : rtt_ms + (plan.bytes * 8e-3) / mbps;
    const cloud = plan.local ? 0 : never(cloud_ms[at]) / cloud_speed;
    return {
      ...plan,
      at,
      device_ms: device,
      network_ms: network,
      cloud_ms: cloud,
      total_ms: device + network + cloud,
    };
  });
}

// By finish, then bytes, then name.
function tieBreak(one, other) {
  if (one.total_ms !== other.total_ms) return one.total_ms - other.total_ms;
  return one.bytes - other.bytes || one.rank - other.rank;
}

// The best option for the time left; without one that fits, the local one.
function choose(options, left_ms) {
  const fitting = options.filter((option) => option.total_ms <= left_ms);
  if (!fitting.length) return { option: options.find((option) => option.local), fits: false };
  const best = Math.max(...fitting.map((option) => option.agreement));
  const errors = fitting.filter((option) => option.agreement === best).map((o) => o.error);
  const least = best - Math.min(...errors);
  const ties = fitting.filter((option) => option.agreement >= least);
  return { option: ties.sort(tieBreak)[0], fits: true };
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
  if (option === taken) {
    return option.total_ms > left_ms
      ? "taken: nothing fits, and the device always has an answer"
      : "taken: the best agreement that fits";
  }
  if (option.device_ms === Infinity) return "never measured on this device";
  if (option.total_ms === Infinity) return "the cloud is out of reach";
  if (option.total_ms > left_ms) return `too slow by ${fixed(option.total_ms - left_ms, 0)} ms`;
  const gap = taken.agreement - option.agreement;
  if (gap > 0) return `agrees ${fixed(gap * 100, 1)} points less`;
  if (option.total_ms > taken.total_ms) {
    const later = fixed(option.total_ms - taken.total_ms, 0);
    return `as good within the standard error, ${later} ms later`;
  }
  return "as good within the standard error, more bytes";
}

// The choice, the one there would be without it, and how far they are apart.
function verdict(options, left_ms) {
  const { option, fits } = choose(options, left_ms);
  if (!fits) {
    const late = option.total_ms < Infinity ? `it takes ${msWords(option.total_ms)} ms` : "untimed";
    return { option, fits, second: null, words: `nothing fits: the device answers as it can (${late})` };
  }
  const others = options.filter((other) => other !== option && other.total_ms <= left_ms);
  if (!others.length) return { option, fits, second: null, words: "nothing else fits" };
  const second = choose(others, left_ms).option;
  const sooner = second.total_ms - option.total_ms;
  const when = `${msWords(Math.abs(sooner))} ms ${sooner >= 0 ? "sooner" : "later"} than`;
  const gap = option.agreement - second.agreement;
  const tie = second.agreement >= option.agreement - option.error;
  const how = tie
    ? `a tie within the standard error, ${when}`
    : `${fixed(gap * 100, 1)} points better and ${when}`;
  return { option, fits, second, words: `${how} ${second.plan}` };
}

// From which budget on which option is taken.
function ladder(options) {
  const times = [...new Set(options.map((option) => option.total_ms))];
  const rungs = [];
  for (const from_ms of times.filter((ms) => ms < Infinity).sort((a, b) => a - b)) {
    const { option, fits } = choose(options, from_ms);
    if (fits && (!rungs.length || rungs[rungs.length - 1].option !== option)) {
      rungs.push({ from_ms, option });
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
