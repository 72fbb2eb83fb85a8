import { wrongWords } from './hook-decision.ts'
import * as z from './zod.ts'

const MAX_BODY = 65_536
const MAX_FIELDS = 100
const STATUS_ERROR = 'a status from 200 to 599'
const NAMES_ERROR = 'a list of names of header fields'
const BODY_ERROR = `a text of at most ${MAX_BODY} characters`
const TARGET_ERROR = 'a path that begins with "/", without blanks'
const TOKEN = /^[!#$%&'*+\-.^_`|~\dA-Za-z]{1,256}$/ // RFC 9110 §5.6.2
const VALUE = z
  .string({ error: 'a text' })
  .regex(/^[\t\x20-\x7e\x80-\xff]*$/, { error: 'a text without control characters' })
/** Where a message ends, and what it does with its connection, is Limpid's to say; the host has a key of its own. */
const NOT_TO_SET =
  /^(?:connection|content-length|expect|host|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade)$/i
const FIELD_NAME = z
  .string({ error: 'the name of a header field' })
  .regex(TOKEN, { error: 'the name of a header field' })
  .refine((name) => !NOT_TO_SET.test(name), { error: 'a header field that does not frame the message' })

const ANSWER = z
  .strictObject(
    {
      // biome-ignore lint/suspicious/noThenProperty: the operator's word; nobody awaits an answer
      then: z.enum(['forward', 'reject'], { error: 'forward or reject' }),
      url: z
        .string({ error: TARGET_ERROR })
        .regex(/^\/[\x21-\x22\x24-\x7e]*$/, { error: TARGET_ERROR })
        .optional(),
      host: z.string({ error: 'a host, perhaps with a port' }).optional(),
      headers: z
        .record(FIELD_NAME, z.union([VALUE, z.array(VALUE).max(MAX_FIELDS)]), { error: 'a map of header fields' })
        .optional(),
      remove: z.array(FIELD_NAME, { error: NAMES_ERROR }).max(MAX_FIELDS, { error: NAMES_ERROR }).optional(),
      status: z
        .number({ error: STATUS_ERROR })
        .int({ error: STATUS_ERROR })
        .min(200, { error: STATUS_ERROR })
        .max(599, { error: STATUS_ERROR })
        .optional(),
      body: z.string({ error: BODY_ERROR }).max(MAX_BODY, { error: BODY_ERROR }).optional(),
    },
    { error: 'an answer such as { then: "reject" }, or undefined' },
  )
  .superRefine(({ then, ...keys }, context) => {
    const alien = then === 'reject' ? (['url', 'host', 'remove'] as const) : (['status', 'body'] as const)
    for (const key of alien) {
      if (key in keys) context.addIssue({ code: 'custom', path: [key], message: `no "${key}" with then ${then}` })
    }
  })

export type HttpAnswer = z.output<typeof ANSWER>

/** What a hook answered about a request; undefined: it says nothing. Else what is wrong with it, in words. */
export function readHttpAnswer(returned: unknown): HttpAnswer | undefined | string {
  if (returned === undefined) return undefined
  const parsed = ANSWER.safeParse(returned)
  if (parsed.success) return parsed.data
  return wrongWords(parsed.error, returned)
}
