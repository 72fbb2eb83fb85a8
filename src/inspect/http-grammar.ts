// What HTTP/1 and HTTP/2 have in common (RFC 9110).

/** Of a head: Node.js's own limit; Apache httpd and nginx stop earlier. */
export const MAX_HEAD_BYTES = 16_384
/** Apache httpd's LimitRequestFields. */
export const MAX_FIELDS = 100
/** RFC 9110 §5.6.2. */
export const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
/** Not in a field's value, nor anywhere in a head; HTAB may be there (RFC 9110 §5.5). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is sought
export const CONTROL = /[\0-\x08\x0a-\x1f\x7f]/
/** RFC 3986 has fewer characters; browsers send the others in a query, too (WHATWG URL), and no reader ends a target at them. */
export const TARGET = /^[\x21\x22\x24-\x7e]+$/
export const LENGTH = /^\d{1,15}$/ // Content-Length: so far go the numbers of every reader
export const DEFAULT_PORTS: ReadonlyMap<string, number> = new Map([
  ['http', 80],
  ['https', 443],
])
