<svg width="0" height="0" hidden aria-hidden="true">
  <symbol id="g-ring" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="2"/></symbol>
  <symbol id="g-dot" viewBox="0 0 16 16"><circle cx="8" cy="8" r="3.5" fill="currentColor"/></symbol>
  <symbol id="g-play" viewBox="0 0 16 16"><path d="M4.5 2.8v10.4L13 8z" fill="currentColor" stroke="currentColor" stroke-width="1.2" stroke-linejoin="round"/></symbol>
  <symbol id="g-diamond" viewBox="0 0 16 16"><path d="M8 1.6 14.4 8 8 14.4 1.6 8z" fill="currentColor"/></symbol>
  <symbol id="g-check" viewBox="0 0 16 16"><path d="m3 8.6 3.2 3.2L13 4.6" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" stroke-linejoin="round"/></symbol>
  <symbol id="g-stop" viewBox="0 0 16 16"><path d="M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3l-3.8-3.8V5.3z" fill="currentColor"/><path d="M8 4.4v4.4M8 11.2v.4" stroke="var(--paper)" stroke-width="1.9" stroke-linecap="round"/></symbol>
  <symbol id="g-slash" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.8" fill="none" stroke="currentColor" stroke-width="1.8"/><path d="m4.2 11.8 7.6-7.6" stroke="currentColor" stroke-width="1.8"/></symbol>
  <symbol id="g-bars" viewBox="0 0 16 16"><path d="M5.2 3.2v9.6M10.8 3.2v9.6" stroke="currentColor" stroke-width="2.6" stroke-linecap="round"/></symbol>
  <symbol id="g-square" viewBox="0 0 16 16"><rect x="3.4" y="3.4" width="9.2" height="9.2" rx="1.4" fill="none" stroke="currentColor" stroke-width="2"/></symbol>
  <symbol id="g-minus" viewBox="0 0 16 16"><path d="M3.4 8h9.2" stroke="currentColor" stroke-width="2.2" stroke-linecap="round"/></symbol>
  <symbol id="g-clock" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.8" fill="none" stroke="currentColor" stroke-width="1.8"/><path d="M8 4.6V8l2.4 1.6" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round"/></symbol>
  <symbol id="g-coin" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="1.7"/><path d="M9.9 6.1C9.500 5.400 8.800 5.200 8 5.200c-1 0-1.900.5-1.900 1.400 0 1.800 3.800.9 3.800 2.800 0 .9-.9 1.400-1.900 1.400-.9 0-1.600-.3-2-1M8 4v8" fill="none" stroke="currentColor" stroke-width="1.2" stroke-linecap="round"/></symbol>
  <symbol id="g-more" viewBox="0 0 16 16"><path d="M3 4.500h10M3 8h10M3 11.500h10" stroke="currentColor" stroke-width="1.800" stroke-linecap="round"/></symbol>
  <symbol id="g-brand" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="2.4"/><circle cx="8" cy="8" r="1.9" fill="currentColor"/></symbol>
</svg>
