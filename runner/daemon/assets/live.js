// Shows the progress of a run that goes on. The page says all of it without this, at each reload.
"use strict";
const live = document.getElementById("live");
const seen = Number(live.dataset.seen);
const source = new EventSource(`/api/v1/runs/${encodeURIComponent(live.dataset.run)}/events`);
const say = (text) => { live.textContent = text; };
const number = (value) => value.toLocaleString("en");
let reload = null;

const progress = (what, told) => {
  const total = told.total === null ? "" : ` of ${number(told.total)}`;
  say(`It goes on: ${what}, ${number(told.done)}${total} ${told.unit}`);
};
source.addEventListener("progress", (event) => {
  const told = JSON.parse(event.data);
  progress(told.phase, told);
});
source.addEventListener("check", (event) => {
  const told = JSON.parse(event.data);
  progress(`${told.check} on ${told.database}`, told);
});
source.addEventListener("ledger", (event) => {
  if (Number(event.lastEventId) <= seen) return;
  const kind = JSON.parse(event.data).event.event;
  if (kind === "ended") source.close();
  // What the ledger has, the server renders; at most once a second.
  if (kind === "ended" || kind === "phase-ended") reload ??= setTimeout(() => location.reload(), 1000);
});
source.addEventListener("stopping", () => { source.close(); say("muster is stopping. Reload the page to see how the run ended."); });
