import { type AdminPages, json } from '@sallyport/admin';
import { PAGE_POLICY, pageScript, pageStyle, pageText } from '../openapi/page.js';

/** The description of the routes in use, and a page that shows it. */
export function adminPages(document: () => object): AdminPages {
  return {
    '/openapi.json': () => json(200, document()),
    '/': () => ({ status: 200, type: 'text/html; charset=utf-8', body: pageText(''), policy: PAGE_POLICY }),
    '/page.js': () => ({ status: 200, type: 'text/javascript; charset=utf-8', body: pageScript, policy: PAGE_POLICY }),
    '/page.css': () => ({ status: 200, type: 'text/css; charset=utf-8', body: pageStyle, policy: PAGE_POLICY }),
  };
}
