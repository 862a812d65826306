// A single-page application: the server has one page for every address.
export const ssr = false;
export const prerender = false;
