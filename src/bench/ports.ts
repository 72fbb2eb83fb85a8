/** Where the servers of Z listen. */
export const HTTP_PORT = 80
export const ECHO_PORT = 7
export const BULK_PORT = 9000
export const UDP_PORT = 5000
export const DNS_PORT = 53

export const TCP_PORTS = [HTTP_PORT, ECHO_PORT, BULK_PORT] as const
