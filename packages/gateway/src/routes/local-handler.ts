import type { RouteHandler } from '../application.js';
import type { LocalRoute } from './route.js';

/** Answers with what the route itself says. */
export function localHandler(route: LocalRoute): RouteHandler {
  return async ({ request, answerHeaders }, reply) => {
    const { status, headers, body = '' } = await route.answer(request);
    return reply
      .code(status)
      .headers({ ...answerHeaders, ...headers } as Record<string, string>)
      .header('x-request-id', request.id)
      .send(body);
  };
}
