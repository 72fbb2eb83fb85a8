import { existsSync } from 'node:fs'
import { request } from 'node:http'
import { type ErrorCode, EXIT_CODES, LimpidError } from '../errors.ts'
import { controlPaths } from './control.ts'

const ANSWER_MS = 5_000

/**
 * Asks the Limpid that runs in this network namespace: `askControl('GET', '/stats')`.
 * @throws LimpidError LIMPID_CONTROL when none answers; or the code of what it says.
 */
export async function askControl(
  method: 'GET' | 'POST',
  path: string,
  body?: unknown,
  answerMs = ANSWER_MS,
): Promise<unknown> {
  const socketPath = controlPaths().find(existsSync)
  if (socketPath === undefined) throw nobody('there is no control socket')
  const { status, text } = await exchange({ socketPath, method, path, timeout: answerMs }, body)
  const value: unknown = JSON.parse(text)
  if (status === 200) return value
  const { code, message, cure } = value as { code?: string; message: string; cure?: string }
  throw new LimpidError(code !== undefined && code in EXIT_CODES ? (code as ErrorCode) : 'LIMPID_CONTROL', message, {
    cure,
  })
}

function exchange(
  asking: { readonly socketPath: string; readonly method: string; readonly path: string; readonly timeout: number },
  body: unknown,
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(nobody(`${asking.socketPath}: ${error.message}`))
    const asked = request(asking, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text })).once('error', fail)
    })
    asked.once('error', fail).once('timeout', () => asked.destroy(new Error(`no answer in ${asking.timeout} ms`)))
    asked.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

function nobody(why: string): LimpidError {
  return new LimpidError('LIMPID_CONTROL', `no limpid run answers in this network namespace: ${why}`, {
    cure: 'run this as the user, and in the network namespace, of limpid run',
  })
}
