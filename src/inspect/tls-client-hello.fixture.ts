import { probeTls, readClientHello, type TlsHello } from './tls-client-hello.ts'
import { MAX_TLS_BYTES } from './tls-record.ts'

/** The first flights of real clients, as they arrived at a socket on loopback. */
export const CAPTURES = {
  // OpenSSL 3.0 s_client -servername www.example.org -alpn h2,http/1.1
  openssl: captured(
    'FgMBAU4BAAFKAwO8AKpWSEIRVkjqSEXJ3GaOVfLkQQVKyDub03IcBauFpyCTxpIkAbYaC7Pgm6FIuvAwbzec9xLuh6wyKbDVza7U0gA+EwITAxMBwCzAMACfzKnMqMyqwCvALwCewCTAKABrwCPAJwBnwArAFAA5wAnAEwAzAJ0AnAA9ADwANQAvAP8BAADDAAAAFAASAAAPd3d3LmV4YW1wbGUub3JnAAsABAMAAQIACgAWABQAHQAXAB4AGQAYAQABAQECAQMBBAAjAAAAEAAOAAwCaDIIaHR0cC8xLjEAFgAAABcAAAANACoAKAQDBQMGAwgHCAgICQgKCAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgIAKwAJCAMEAwMDAgMBAC0AAgEBADMAJgAkAB0AIOHh0inr+XJCX/EAHra62K4ncP2gK1UpFKaML0YilrQL',
  ),
  // OpenSSL 3.0 s_client -servername www.example.org -tls1_2
  opensslTls12: captured(
    'FgMBAM8BAADLAwMNDK5YXpAbFzTJeN2CYpF9a3Hd+iml1BNLRIvRFj8GngAAOMAswDAAn8ypzKjMqsArwC8AnsAkwCgAa8AjwCcAZ8AKwBQAOcAJwBMAMwCdAJwAPQA8ADUALwD/AQAAagAAABQAEgAAD3d3dy5leGFtcGxlLm9yZwALAAQDAAECAAoADAAKAB0AFwAeABkAGAAjAAAAFgAAABcAAAANACoAKAQDBQMGAwgHCAgICQgKCAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgI=',
  ),
  // OpenSSL 3.0 s_client -noservername
  opensslUnnamed: captured(
    'FgMBASQBAAEgAwOaz//mB1DUAFaYuMmSbAmyvGFWfK1OC+a0CTLHtz/a+CBh4kYBrfgcB5j9W2uadzy5E4s3U/SehGRSFdXby2lfcwA+EwITAxMBwCzAMACfzKnMqMyqwCvALwCewCTAKABrwCPAJwBnwArAFAA5wAnAEwAzAJ0AnAA9ADwANQAvAP8BAACZAAsABAMAAQIACgAWABQAHQAXAB4AGQAYAQABAQECAQMBBAAjAAAAFgAAABcAAAANACoAKAQDBQMGAwgHCAgICQgKCAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgIAKwAJCAMEAwMDAgMBAC0AAgEBADMAJgAkAB0AIFHrdU1eEAZrKBdgWFJkvi0/mS28XXndEMh4+HjCzTIg',
  ),
  // OpenSSL 3.0 s_client -servername 192.0.2.7
  opensslAddress: captured(
    'FgMBATYBAAEyAwOm2ezGgrFIOSMARvdl2yDwdA75OCNhZgARnM4+zUtNDiCJ6INDPteUBAkEAJPL0A39KEHO5qiK6Yo5bGC2a4NA/wA+EwITAxMBwCzAMACfzKnMqMyqwCvALwCewCTAKABrwCPAJwBnwArAFAA5wAnAEwAzAJ0AnAA9ADwANQAvAP8BAACrAAAADgAMAAAJMTkyLjAuMi43AAsABAMAAQIACgAWABQAHQAXAB4AGQAYAQABAQECAQMBBAAjAAAAFgAAABcAAAANACoAKAQDBQMGAwgHCAgICQgKCAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgIAKwAJCAMEAwMDAgMBAC0AAgEBADMAJgAkAB0AIKSENpsc6VkdTnW7zbHDosv2s6lUM5Q5TjzZ9rG6EP1S',
  ),
  // OpenSSL 3.0 s_client -servername WWW.Example.ORG.
  opensslDot: captured(
    'FgMBAT0BAAE5AwPyB31ZkRWi8BUWaqca8ivcSyqxl+Zt7ya323r5+jzA5SDvVW7D6Akf7M835ijOuHmvDhdHnNPUkh+XqgezNGMRcwA+EwITAxMBwCzAMACfzKnMqMyqwCvALwCewCTAKABrwCPAJwBnwArAFAA5wAnAEwAzAJ0AnAA9ADwANQAvAP8BAACyAAAAFQATAAAQV1dXLkV4YW1wbGUuT1JHLgALAAQDAAECAAoAFgAUAB0AFwAeABkAGAEAAQEBAgEDAQQAIwAAABYAAAAXAAAADQAqACgEAwUDBgMIBwgICAkICggLCAQIBQgGBAEFAQYBAwMDAQMCBAIFAgYCACsACQgDBAMDAwIDAQAtAAIBAQAzACYAJAAdACC0lyW2r6dGw/uo+P3PoENWEktY5cYmGB8jqb3o4RCuaA==',
  ),
  // OpenSSL 3.0 s_client -servername www.example.org -max_send_frag 512 and sixty protocols: three records
  opensslRecords: captured(
    'FgMBAgABAAT0AwOVGHUbP1fisygrCiG7Zc9TspxJy7RF6k7YhZOjLyst3CCjPb35eFx4iNGx9k5dxq/aunCkAK4tcfywc4r8lZk9NAA+EwITAxMBwCzAMACfzKnMqMyqwCvALwCewCTAKABrwCPAJwBnwArAFAA5wAnAEwAzAJ0AnAA9ADwANQAvAP8BAARtAAAAFAASAAAPd3d3LmV4YW1wbGUub3JnAAsABAMAAQIACgAWABQAHQAXAB4AGQAYAQABAQECAQMBBAAjAAAAEAO4A7YOcHJvdG9jb2wtMC8xLjAOcHJvdG9jb2wtMS8xLjAOcHJvdG9jb2wtMi8xLjAOcHJvdG9jb2wtMy8xLjAOcHJvdG9jb2wtNC8xLjAOcHJvdG9jb2wtNS8xLjAOcHJvdG9jb2wtNi8xLjAOcHJvdG9jb2wtNy8xLjAOcHJvdG9jb2wtOC8xLjAOcHJvdG9jb2wtOS8xLjAPcHJvdG9jb2wtMTAvMS4wD3Byb3RvY29sLTExLzEuMA9wcm90b2NvbC0xMi8xLjAPcHJvdG9jb2wtMTMvMS4wD3Byb3RvY29sLTE0LzEuMA9wcm90b2NvbC0xNS8xLjAPcHJvdG9jb2wtMTYvMS4wD3Byb3RvY29sLTE3LzEuMA9wcm90b2NvbC0xOC8xLjAPcHJvdG9jb2wtMRYDAQIAOS8xLjAPcHJvdG9jb2wtMjAvMS4wD3Byb3RvY29sLTIxLzEuMA9wcm90b2NvbC0yMi8xLjAPcHJvdG9jb2wtMjMvMS4wD3Byb3RvY29sLTI0LzEuMA9wcm90b2NvbC0yNS8xLjAPcHJvdG9jb2wtMjYvMS4wD3Byb3RvY29sLTI3LzEuMA9wcm90b2NvbC0yOC8xLjAPcHJvdG9jb2wtMjkvMS4wD3Byb3RvY29sLTMwLzEuMA9wcm90b2NvbC0zMS8xLjAPcHJvdG9jb2wtMzIvMS4wD3Byb3RvY29sLTMzLzEuMA9wcm90b2NvbC0zNC8xLjAPcHJvdG9jb2wtMzUvMS4wD3Byb3RvY29sLTM2LzEuMA9wcm90b2NvbC0zNy8xLjAPcHJvdG9jb2wtMzgvMS4wD3Byb3RvY29sLTM5LzEuMA9wcm90b2NvbC00MC8xLjAPcHJvdG9jb2wtNDEvMS4wD3Byb3RvY29sLTQyLzEuMA9wcm90b2NvbC00My8xLjAPcHJvdG9jb2wtNDQvMS4wD3Byb3RvY29sLTQ1LzEuMA9wcm90b2NvbC00Ni8xLjAPcHJvdG9jb2wtNDcvMS4wD3Byb3RvY29sLTQ4LzEuMA9wcm90b2NvbC00OS8xLjAPcHJvdG9jb2wtNTAvMS4wD3Byb3RvY29sLTUWAwEA+DEvMS4wD3Byb3RvY29sLTUyLzEuMA9wcm90b2NvbC01My8xLjAPcHJvdG9jb2wtNTQvMS4wD3Byb3RvY29sLTU1LzEuMA9wcm90b2NvbC01Ni8xLjAPcHJvdG9jb2wtNTcvMS4wD3Byb3RvY29sLTU4LzEuMA9wcm90b2NvbC01OS8xLjAAFgAAABcAAAANACoAKAQDBQMGAwgHCAgICQgKCAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgIAKwAJCAMEAwMDAgMBAC0AAgEBADMAJgAkAB0AIGkPZt1usYPqRdV/MJV1H4sp/2/Xzbj69YBLoDDqaHtH',
  ),
  // curl 7.88 --http2
  curlHttp2: captured(
    'FgMBAgABAAH8AwP+NSx6x1Y5D2xE+eSZWfO5QIUlNP92A7VpBhLESjY6LyB2IQZAP3A2UgFzWiU/nkDqfQd8UHJ2jwuaxncFFyyMJAA+EwITAxMBwCzAMACfzKnMqMyqwCvALwCewCTAKABrwCPAJwBnwArAFAA5wAnAEwAzAJ0AnAA9ADwANQAvAP8BAAF1AAAAFAASAAAPd3d3LmV4YW1wbGUub3JnAAsABAMAAQIACgAWABQAHQAXAB4AGQAYAQABAQECAQMBBAAQAA4ADAJoMghodHRwLzEuMQAWAAAAFwAAADEAAAANACoAKAQDBQMGAwgHCAgICQgKCAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgIAKwAJCAMEAwMDAgMBAC0AAgEBADMAJgAkAB0AIP153n3wOP7HyPnManlnS0rDY9ps2qXqxVqIu/KFgskvABUArgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==',
  ),
  // curl 7.88 --http1.1
  curlHttp1: captured(
    'FgMBAgABAAH8AwNPsM3jXSi6+4Sg77OLmWXQmiTHWCK+aVxT2kKys7ud3yAQRXC+KVK67Aqj0jpqxIhv+Wck9+Hy1vzO//s6nqCIpAA+EwITAxMBwCzAMACfzKnMqMyqwCvALwCewCTAKABrwCPAJwBnwArAFAA5wAnAEwAzAJ0AnAA9ADwANQAvAP8BAAF1AAAAFAASAAAPd3d3LmV4YW1wbGUub3JnAAsABAMAAQIACgAWABQAHQAXAB4AGQAYAQABAQECAQMBBAAQAAsACQhodHRwLzEuMQAWAAAAFwAAADEAAAANACoAKAQDBQMGAwgHCAgICQgKCAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgIAKwAJCAMEAwMDAgMBAC0AAgEBADMAJgAkAB0AIKKd6muN/ticslb265HxablrAHHHE6Cp2GEeiYCMcy8WABUAsQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==',
  ),
  // Node.js 24 tls.connect with ALPNProtocols http/1.1: a key share of ML-KEM (OpenSSL 3.5)
  node24: captured(
    'FgMBBkIBAAY+AwPDJFsdwx77N5WjCvu6RK71M6+TvRzaG1L6IYY3gAYdpSCGisY+ZOafDg+o1QAj+mafQ53T1iSQvVlzV/yr559o+ABoEwITAxMBwC/AK8AwwCwAnsAnAGfAKABrAKMAn8ypzKjMqsCtwJ/AXcBhwFfAUwCiwKzAnsBcwGDAVsBSwCQAasAjAEDACsAUADkAOMAJwBMAMwAyAJ3AncBRAJzAnMBQAD0APAA1AC8BAAWN/wEAAQAAAAAUABIAAA93d3cuZXhhbXBsZS5vcmcACwAEAwABAgAKABIAEBHsAB0AFwAeABgAGQEAAQEAIwAAABAACwAJCGh0dHAvMS4xABYAAAAXAAAADQA2ADQJBQkGCQQEAwUDBgMIBwgICBoIGwgcCAkICggLCAQIBQgGBAEFAQYBAwMDAQMCBAIFAgYCACsABQQDBAMDAC0AAgEBADME6gToEewEwFd1ISQnHZaABqIDEVaTfOhMNOSqSfJsZ5T5iFq7dby1RC6ZkVChtY+JD2P6WFUQJ+EJscuQy1umsGlaszXbqfbQEHGanFWacgo5pEfYFtDWuBUWTDq1q7pRz9+MzFEQiO0YwL2YUh5cEbtAKlxTXpIxstJrtXjsKND5DJ3wfPX3gQuFHorCICanwThxSGhmTaEhgmjCZmfFl+qWnW76DDyiUNrkLELzKbGaGiyksAtrue/QQTEKGzxYACzEK+mXExs2oQBERIwFkIGpk1z0d0kns43LLbhip9kKQ9TxTSxDAAMklJFXXXn0p2ekNjRTurWDuuBhy1SiYPqyZaQWCGdEbZDIfZUqrO5xGjPztFT3JkJ4j1rKHhhbJ/kplvwVN+pnHWiqYLqCMc06m/NwIa5pUbh2hHOsFKWVuh5FkXyRf5kVAPUCivZZaIyjvaQEZi5Kb3JMMHlVHHuJCs+aARomF31QEoeBcC1Tg0iLj5apQSZZH4+zu73pcrOUBvICMgvhkGmLCOGlBpL6iZZmPfW8dNY0DtghNW/UDfu5RcxoPg4afYILv2GFNDZlqHC3IfZHBkzZKpqjIkJVwfY0kTZLIEWEEnFIXSd6WJYKBcyXIMohxwJ1IsI8exLqHXC1hT63wHOngRhwMN4HJbQcZCxJyHhwsSLjeZgHwcM6nzNBjjT1s6GKeh4ZbXoXQJAXkjyGhkQsPKXQf+lahFIoMfcoZSdDZV/gA/Zpv68ZWMrVJGHsvRxYSPorwEK4JPPYVEqDoN62VzTDhP4Jj/NAsTwZacE2dYWDzCxmOp9DPuDagNsBDVcMFxGUz5xlk1bQinQsPP6mNpBpNohRtx7GeGzWkj4JgmkUGC73p25lXCAUbvhpjxjZgcuiRcfiob8Qw3MTmi2rpB0yHKScPPx2r8rEjPR1BwKTSBdrdD0TQ4SiWm4bGI/4VPl8Ey0gkkN0bg34MARqYxeEYQ0yIDtWBTsZESjmYeGwXNrEJO4FPzuDyihjQbJgarSEVZxbmm3wBKGrzSYldb/SKgV2BBGacpvSV7FkwEOQE0rkqqTZMZ8ssbhZiJJxVVKVTYObi59hbuyHDz3ARFizqOxAToEaG3kIv7+Xr0tVs+OFcLf2Qf4EBkBSW1T8DG9weg10nXOGLCKlmaHJEXz0HetIJL2pG2ICpwOxmOC2n+3mx01kMXUGWBxVC3BCD3j0l3q1j+T1ycNwPfVzpQwzycDmn55ICtvVn7ssbGvHPH4obSZ0DkbpZ5c1VDt0e6rzXFtll+nXxL+ZF7Y3sn/JlU9BmWoFfOgbAx4qhzABTRp6t4v2TSuhyjBimKyqYwH1mKZTpMFbLOYXMRYHcoDYyB2xiVY5wxICZz9zAQmgEe4yrkDrySknzcljOqIQqVeXBxICtuAncpHkRaDazmJFKkNkkTCmjzXoRJJLf64UuaaYN217nkkVf2BIO3AGOEiByIEqtHj7dHATFxtpBy9SFxNCjCeUnO8LJyyRle6cwoyqQA4LzYhDiwwgCuh6Fa+ct44FdlZ6xXpaB/oJTwSiINeNtumnmYVhdKOqTw2orvH7ydf9O3JG5pkwiqDrISQTFFbRkSKPRF8HpthGi7upiDiyTK4OKRAAHQAgATRTR7mgSi7/uJ6f+z7AJSbIpEUf6M0EnMPuF8Us1Ec=',
  ),
  // Python 3.11 ssl.create_default_context
  python: captured(
    'FgMBAgABAAH8AwP5IokmvlkOod2gMilq/hXU05UmS5KcwZydvytraMypzyDxknUH7QQH8BWfSRZTI6T+/HL3gZ1vXZfZuXOGOY/wXQAkEwITAxMBwCzAMMArwC/MqcyowCTAKMAjwCcAnwCeAGsAZwD/AQABjwAAABQAEgAAD3d3dy5leGFtcGxlLm9yZwALAAQDAAECAAoAFgAUAB0AFwAeABkAGAEAAQEBAgEDAQQAIwAAABYAAAAXAAAADQAqACgEAwUDBgMIBwgICAkICggLCAQIBQgGBAEFAQYBAwMDAQMCBAIFAgYCACsABQQDBAMDAC0AAgEBADMAJgAkAB0AIFT7H4w3yxUx6qPf+J5qmv8GVRyP9/4A+xAI8KC++bc9ABUA3gAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==',
  ),
  // git 2.39 (GnuTLS) to https://localhost
  git: captured(
    'FgMBAYkBAAGFAwNKlO1VcCDNrfJG3AuZiCoHBZaDqYUFAOT2Th4Vxdr30CBtvZhJGMaf2V8q+ySnTFO4rL2gJlg1oJMZ7pGvrJN5dQA6EwITAxMBEwTALMypwK3ACsArwKzACcAwzKjAFMAvwBMAncCdADUAnMCcAC8An8yqwJ8AOQCewJ4AMwEAAQIABQAFAQAAAAAACgAWABQAFwAYABkAHQAeAQABAQECAQMBBAALAAIBAAANACIAIAQBCAkIBAQDCAcFAQgKCAUFAwgIBgEICwgGBgMCAQIDABAADgAMAmgyCGh0dHAvMS4xABYAAAAXAAAAMwBrAGkAFwBBBEOYUT31Wxz51CdY/xZPFdGKF5tKDhTYHQ1yZJAhgPH7NxRwbQDw0di0JsM2486wuFkiu+mFbelMCievLgtI3XkAHQAgl6n/JXA0vX59RVuIdAs+C3zuF6slRa3B6SslunNSOg4AKwAJCAMEAwMDAgMB/wEAAQAAAAAOAAwAAAlsb2NhbGhvc3QAHAACQAE=',
  ),
  // Chromium 156 --headless: GREASE, ML-KEM, Encrypted Client Hello
  chromium: captured(
    'FgMBB74BAAe6AwOTQ6/HgwVsjQ/xINwPo8EZ2LHxM2XtSkSVG5VweH/UAyDUbJx43SEfX/qSoD6TdbNSKNSIXakOTuQCK+aq65JETwAgKioTARMCEwPAK8AvwCzAMMypzKjAE8AUAJwAnQAvADUBAAdR2toAAAAtAAIBAQAjAAAAAAAUABIAAA93d3cuZXhhbXBsZS5vcmcAFwAARM0ABQADAmgyABAADgAMAmgyCGh0dHAvMS4xABIAAAAFAAUBAAAAAAAKAAwACqqqEewAHQAXABgAKwAHBtraAwQDA/4NAPoAAAEAAboAIF9PfEum5xvphopUrqjXDJbXI9H5npHWWZfNkIsl/NA7ANAEfUIfqo3vftgrGqn+h3w0mn0F2L9DVmGbaVSsrd4hfoalMpYE2cTMgJE9qmiMTCrimcE7u9Aqb1sicX04Nae6RSL6FY7zp618IaE8mre7SDIhcZ30vjGJd1axBOdH7lolmNVV2wsqGjel1FB3wojr3d1l8SKX2Xsezlxn4wdyRA/4yZk5wiB4cbtyHBB16TrZOlxLXxEQ80gbDz/SAVjl1T7faLmi/Fdl7ObotcQGtTUJ0uQjbqtBFu7w4i3HIHj6PGhyeSqkCICxdYLKBQorAA0AGgAYWloJBAkFCQYEAwgEBAEFAwgFBQEIBgYBADME7wTtqqoAAQAR7ATA1cpgCAdkQbAYfyRN9Bwo7dDOMDUwqfIxZkl9LlOBe6K+B+aTTXyjDRckxGSiLxWBSckFx5FKL0lZwjEJroiEhPqCHlRdF2eEYdWEuDjKdbohwkm3ycvBfqebgZMaDiVCNPZeu5mJLJS42oHBRheNWrXC39YU3Es1vYATp0FN14g5egzHVIEYSRUE46JqJ7E5HaaYu3RroqeybrxGvzyOn8M0R+qkMdWujyWJy7mMP5Rm9rkP+2CM63mPN4J86ABfRQix/yoIDTxPD3cwiLt5tWVXGyMxlaxns7ZPFOnLFJy0XHgd7MSnwtAwkAxO1CdWNfUWuhQPHgg+X6NaDRxkNTEY/1aiowM2KFkvlbAipBuhIJEHYbZqMlxsUKgSKVcMIaUU9lHLg7m/xROZIRt6tXiAsPippVCnifiEovsHDcKtfUwmgjAjClGN3zMtQeq1CGlMheBwIsS/BCy62pWIxgtUDQAFaysZX0fPWyK7RejM3Gt9E5x9lBBe6ukZdTibt+O6QiOsBidHerq3a6k5okiB4eM06KxVEXbLQZgsdaGQebQR/bY8ngR67mQ2n0Si2ezO+BeE0ZVs43daG2CgnyAZkUzM0ZmuNXo7acUvwKbAvOnNpaKHcPRgtQCFxVUwrVminHUc/Kk/5tIpJUOj0Al/1lodOfeCxMdV9AYwtnUNGGYMCcCcrqMwoVw9HebCNiG3WAQ3cRC5DbRaJERAuoE/9Zof8Rwv6lUXGmKrT2ePLdUD5yQ8VjA2uFYLd1s0xqJhZZubFBlS0VCPdDwrlnaqzTgHZ7GUNcLAQqObPWumJReCErtGiSUtRztgdHaPSMyEQqJdLOXHXeSZJUdKKUIdpQOjKFJ4G4UeMJuQWNcEdoQ/gZQxN2oZvVgn4twaYTqxoJg/jad2CnEdMCFjuXjCM+Jb65xg6gFTFlOnR2nLibgBbjcrH+YwEQgV15qsWRB9BGNqHdZPiFog6KJGNBmTnQtnNqhS91hG2MqeDkur8/BLeJFAT0J9NgV3xvgALdorzTk3h4UFK2KTc5NXp/JUJHVgd8o4tUMaMOa+UMxmX1ElpmNFyPsB0CJliCG/PILCESK09ShgXIgwpekTQGcj6IANR/Ffkdqw6DVcdEMq3hIoz3afxpkAS8shsYlBj1Vv2CkApfhLV8i/jyXLBJyOU/ZiSHWvm7eRuSAr2SQCa/QUZghEunIDKYIvPzSdqzAdS8Ub82SBR7h9wsORyIG4UQB0JOh4qQNnXbYESeV/TUMGY2kRFgkipKW1TphtXAw+kQXADGUTtdcye5Y+jEWFNUNH+1K1kxsOrPIi/OVjZNqSVPS5+oIImRwvUGijzyZwxlOxbMrLjBXPZtsvjsHJjovDE8Ua3Xmdm3IwQ8EC5cBEyDEB+ZAn8YobiRAFkQNSIyW86RBRVtySFlkfnlmOQqWXfAaCfwSbRKGl4EVQi0tyTzq6mgEjDkgBp1R7/RKSFOyJvBh1G0e0gFYJLuZbcMu5ucOOKNGtSQAUx2smemQ2hdpRmDV/PFhP5YQZjIWW0wsBqvV/WI50YKpmzu/i54qp5YxamXyY78fKcofxPVAbPwIQ0PkX5mwjbX2cVdPiDSqyYK33v6BgWYlXMAAdACBMGg+ib6V2In5iyj6jZPKHLoDgmry3juFEZTyymqPQMgALAAIBAP8BAAEAABsAAwIAAso0ALoAuAWC3xMCAQWC3xMCBgWC3xMCDQWC3xMCDgWC3xMCDwWC3xMCEgWC3xMCEwWC3xMCFAiDmmSMmy0BBwiDmmSMmy0BCAiDmmSMmy0BCQiDmmSMmy0BCgiDmmSMmy0BCwiDmmSMmy0BDAiDmmSMmy0BDQiDmmSMmy0BEgiDmmSMmy0BEwTWeQkBBNZ5CQQE1nkJBQTWeQkGBNZ5CQcE1nkJCATWeQkKBNZ5CQsE1nkJDATWeQkNBNZ5CQ+6ugABAA==',
  ),
}

function captured(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, 'base64'))
}

export interface HelloOptions {
  readonly version?: number
  readonly sessionId?: readonly number[]
  readonly ciphers?: readonly number[]
  readonly methods?: readonly number[]
  /** Type and data of each; undefined: a hello without the field. */
  readonly extensions?: readonly (readonly [type: number, data: readonly number[]])[] | undefined
}

/** A ClientHello as a handshake message. */
export function helloMessage(options: HelloOptions = {}): Uint8Array {
  const { version = 0x0303, sessionId = [], ciphers = [0x1301], methods = [0] } = options
  const extensions = 'extensions' in options ? options.extensions : [serverName('www.example.org')]
  const list = extensions?.flatMap(([type, data]) => [...uint16(type), ...vector16(data)])
  const body = [
    ...uint16(version),
    ...new Array<number>(32).fill(7),
    ...vector8(sessionId),
    ...vector16(ciphers.flatMap(uint16)),
    ...vector8(methods),
    ...(list === undefined ? [] : vector16(list)),
  ]
  return Uint8Array.from([1, body.length >> 16, ...uint16(body.length & 0xffff), ...body])
}

export function serverName(text: string): readonly [number, number[]] {
  return [0, vector16([0, ...vector16([...Buffer.from(text, 'latin1')])])]
}

export function protocols(...names: readonly string[]): readonly [number, number[]] {
  return [16, vector16(names.flatMap((name) => vector8([...Buffer.from(name, 'latin1')])))]
}

export function vector16(bytes: readonly number[]): number[] {
  return [...uint16(bytes.length), ...bytes]
}

export function vector8(bytes: readonly number[]): number[] {
  return [bytes.length, ...bytes]
}

export function uint16(value: number): number[] {
  return [value >> 8, value & 0xff]
}

/** The message in records of these sizes; the last takes what is left. */
export function inRecords(message: Uint8Array, sizes: readonly number[] = [], version = 0x0301): Uint8Array {
  const records: number[] = []
  let at = 0
  for (const size of [...sizes, message.length]) {
    const fragment = message.subarray(at, at + size)
    if (fragment.length === 0) break
    records.push(...record(22, fragment, version))
    at += size
  }
  return Uint8Array.from(records)
}

export function record(type: number, fragment: Iterable<number>, version = 0x0301): number[] {
  return [type, ...uint16(version), ...vector16([...fragment])]
}

/** The message of a capture, without its records. */
export function messageOf(bytes: Uint8Array): Uint8Array {
  const message: number[] = []
  for (let at = 0; at < bytes.length; ) {
    const end = at + 5 + bytes[at + 3]! * 256 + bytes[at + 4]!
    message.push(...bytes.subarray(at + 5, end))
    at = end
  }
  return Uint8Array.from(message)
}

/** For the fuzz run: throws when an answer breaks what the probe promises. */
export const subject = {
  name: 'tls',
  samples: [
    ...Object.values(CAPTURES),
    inRecords(messageOf(CAPTURES.chromium), [1, 1, 1, 1, 500]),
  ] as readonly Uint8Array[],
  parse: withPrint,
  mostBytes: 262_144, // 16 for each byte that it looks at
  read(bytes: Uint8Array, answer: ReturnType<typeof probeTls>): string {
    const early = probeTls(bytes.subarray(0, bytes.length >> 1))
    if (early.kind !== 'more' && early.kind !== answer.kind) throw new Error(`${early.kind} became ${answer.kind}`)
    const alone = readClientHello(bytes.subarray(5), 'quic')
    for (const one of [answer, alone]) if (one.kind === 'match') checkHello(one.finding)
    if (answer.kind === 'more' && (answer.atLeast <= bytes.length || answer.atLeast > MAX_TLS_BYTES)) {
      throw new Error(`${answer.atLeast} bytes wanted after ${bytes.length}`)
    }
    return answer.kind === 'malformed' ? answer.why.replaceAll(/\d+/g, 'N') : answer.kind
  },
}

/** As probeTls(); the fingerprint is made when it is asked for. */
function withPrint(bytes: Uint8Array): ReturnType<typeof probeTls> {
  const answer = probeTls(bytes)
  if (answer.kind === 'match') answer.finding.ja4.at(0)
  return answer
}

function checkHello(hello: TlsHello): void {
  if (!/^[tq](1[0-3]|s[23]|00)[di]\d{4}[0-9a-zA-Z]{2}_[0-9a-f]{12}_[0-9a-f]{12}$/.test(hello.ja4))
    throw new Error(hello.ja4)
  if (hello.serverName !== undefined && !/^[a-z0-9_.-]{1,253}$/.test(hello.serverName))
    throw new Error(hello.serverName)
  if (hello.serverName !== undefined && hello.addressAsName !== undefined) throw new Error('a name and an address')
}
