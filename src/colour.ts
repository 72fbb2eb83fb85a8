/** Wraps text in a colour, or returns it as it is where no colour is wanted. */
export interface Colour {
  bold(text: string): string
  dim(text: string): string
  green(text: string): string
  red(text: string): string
  yellow(text: string): string
}
