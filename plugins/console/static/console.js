// The entry: every page is whole without it. It keeps the page fresh, and lends it buttons.
import {start as live} from "./live.js";
import {start as act} from "./act.js";

document.documentElement.classList.add("scripted");
for (const begin of [live, act]) begin();
