import * as z from './zod.ts'

/** A name that an operator gives to something: safe in rule comments, messages and flow records. */
export const NAME = z
  .string({ error: 'a name' })
  .regex(/^[A-Za-z0-9][\w.-]{0,31}$/, { error: 'a name of at most 32 letters, digits, ".", "_" and "-"' })
