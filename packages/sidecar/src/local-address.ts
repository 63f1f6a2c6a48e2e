export { type LocalAddress, localAddressText as textOf } from '@sallyport/core/spi';
