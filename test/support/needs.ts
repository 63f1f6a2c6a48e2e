/**
 * Skips the suite it is called in, by name, when `npm test` could not find or fetch a program of others (scripts/servers.mjs).
 * With SALLYPORT_REQUIRE_SERVERS=1 `npm test` refuses to run instead.
 */
export function needs(program: string): void {
  before(function () {
    if (process.env.SALLYPORT_MISSING?.split(',').includes(program)) this.skip();
  });
}
