export * from '@sallyport/pki';
