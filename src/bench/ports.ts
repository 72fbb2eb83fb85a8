/** Where the servers of Z listen. */
export const HTTP_PORT = 80
export const ECHO_PORT = 7
export const BULK_PORT = 9000
export const UDP_PORT = 5000
export const DNS_PORT = 53

/** Where clients of TLS dial, and where the servers of the names are to which their flows are routed: the first, and the next. */
export const TLS_PORT = 443
export const NAMED_PORTS = 8441

export const TCP_PORTS = [HTTP_PORT, ECHO_PORT, BULK_PORT] as const
